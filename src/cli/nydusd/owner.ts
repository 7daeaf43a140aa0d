// A daemon that was started for somebody (nydusify check, mount) ends with that process, also when it is killed. The owner keeps one end of a
// socket and says by an environment variable which descriptor is the other: the kernel closes it whatever happens. Not PR_SET_PDEATHSIG: that is the
// death of the thread that started us.

import { Socket } from 'node:net'

/** Calls `end` when nobody holds the other end of `descriptor` any more. */
export function watchOwner(descriptor: string, end: () => void): void {
  const owner = new Socket({ fd: Number(descriptor), readable: true, writable: false })
  owner.on('error', end)
  owner.on('close', end)
  owner.resume()
  owner.unref()
}

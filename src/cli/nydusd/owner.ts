// A daemon that was started for somebody (nydusify check, mount) ends with that process, also when it is killed. The owner keeps one end of a
// socket and says by NYDUSD_OWNER_FD which descriptor is the other: the kernel closes it whatever happens. Not PR_SET_PDEATHSIG: that is the
// death of the thread that started us.

import { Socket } from 'node:net'
import { OWNER_VARIABLE } from '../../core/owner.ts'

/** Calls `end` when the owner is gone; does nothing for a daemon without one. */
export function watchOwner(env: NodeJS.ProcessEnv, end: () => void): void {
  const fd = Number(env[OWNER_VARIABLE])
  if (!Number.isInteger(fd) || fd <= 2) return
  delete env[OWNER_VARIABLE] // it is nobody else's
  const owner = new Socket({ fd, readable: true, writable: false })
  owner.on('error', end)
  owner.on('close', end)
  owner.resume()
  owner.unref()
}

// A Unix socket that a monitor connects to, as a descriptor.

import { rmSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../core/errors.ts'
import { native } from '../native/load.ts'
import { ERRNO } from './errno.ts'

/** Listens on `socket`; a file that a killed process left there is replaced. @throws SERVE_MOUNT when somebody listens there, or nobody can */
export function listenOn(socket: string): number {
  const name = Buffer.from(path.resolve(socket))
  const probe = native().unixConnect(name, false)
  if (probe >= 0) {
    native().closeFd(probe)
    throw new CodedError('SERVE_MOUNT', `somebody listens on ${socket} already`, { socket })
  }
  if (probe === -ERRNO.ECONNREFUSED) rmSync(socket, { force: true }) // left by a process that was killed
  const fd = native().unixListen(name, false)
  if (fd < 0) throw new CodedError('SERVE_MOUNT', `cannot listen on ${socket}: errno ${-fd}`, { socket, errno: -fd })
  return fd
}

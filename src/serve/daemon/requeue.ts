// What becomes of the requests that a dead daemon had read and not answered: the kernel gives them out again when it is asked to.
// SPEC: linux fs/fuse/dev.c fuse_notify_resend (6.9); spec-surface.md B.7.

import { writeFileSync } from 'node:fs'
import { publish } from '../../core/diagnostics.ts'
import { native } from '../../native/load.ts'
import { outHeader } from '../../wire/fuse/header.ts'

/** SPEC: fuse.h FUSE_NOTIFY_RESEND. */
const FUSE_NOTIFY_RESEND = 7

/** `--failover-policy`. */
export type FailoverPolicy = 'none' | 'resend' | 'flush'

/**
 * Applies `policy` to the connection `fd` of the mounted `device` (`major:minor`). To be called before this server reads: requests that somebody is serving
 * meanwhile are given out twice, and the journal of a writable mount knows only what servers before this one have done.
 * COMPAT: `flush` fails the requests under way, with a file of a patched kernel; where there is none they are repeated: an answer is what their readers want.
 */
export function requeue(fd: number, device: string | undefined, policy: FailoverPolicy): void {
  if (policy === 'none') return
  if (policy === 'flush' && writeControl(device, 'flush')) return
  const sent = native().fuseReply(fd, outHeader.encode({ length: outHeader.size, error: FUSE_NOTIFY_RESEND, uniqueLow: 0, uniqueHigh: 0 }), -1, 0, 0)
  if (sent === 0 || writeControl(device, 'resend')) return
  publish('serve:warning:raised', { message: `the kernel cannot repeat requests (errno ${-sent}, needs Linux 6.9): those that the last daemon had read and not answered stay without an answer` })
}

// Control files of the connection, in kernels with upstream's patches.
function writeControl(device: string | undefined, name: 'resend' | 'flush'): boolean {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${device?.split(':')[1]}/${name}`, '1', { flag: 'r+' })
    return true
  } catch {
    return false // the file is not there, or not ours: the caller knows another way
  }
}

// One FUSE connection: mounting it and shaking hands. After that its descriptor is all there is of it.

import { CodedError } from '../core/errors.ts'
import { inHeader } from '../wire/fuse/header.ts'
import { FUSE_OP } from '../wire/fuse/opcode.ts'
import { dataViewOf } from '../core/struct.ts'
import { native } from '../native/load.ts'
import { type Connection, type ConnectionPolicy, MAX_READ, REQUEST_SLOT } from './fuse/connection.ts'
import { FuseCore } from './fuse/core.ts'
import { FileSystemTable } from './fuse/file-system-table.ts'

/** SPEC: mount(2). */
const MS_RDONLY = 1
const MS_NOSUID = 2
const MS_NODEV = 4
const MS_NOATIME = 1024
/** LIMIT: the kernel queues INIT inside mount(2), so it is there at once; this only bounds a broken one. */
const HANDSHAKE_TIMEOUT_MS = 10_000

/** A connection that is mounted and initialised. `fd` is /dev/fuse: every reply is written to the descriptor its request was read from. */
export interface FuseSession {
  readonly fd: number
  readonly mountpoint: string
  readonly connection: Connection
}

/**
 * mount(2) on the canonical directory `mountpoint`, then INIT. COMPAT: mount parameters as upstream's (spec-surface.md B.1).
 * @throws SERVE_MOUNT; nothing stays mounted then
 */
export function mountSession(mountpoint: string, policy: ConnectionPolicy): FuseSession {
  const addon = native()
  const flags = MS_NOSUID | MS_NODEV | MS_NOATIME | (policy.writable ? 0 : MS_RDONLY)
  const data = `rootmode=40000,user_id=${process.getuid?.() ?? 0},group_id=${process.getgid?.() ?? 0},default_permissions,allow_other,max_read=${MAX_READ}`
  const fd = addon.fuseMount('rafs', 'fuse', Buffer.from(mountpoint), flags, data)
  if (fd < 0) throw new CodedError('SERVE_MOUNT', `cannot mount FUSE on ${mountpoint}: errno ${-fd}`, { mountpoint, errno: -fd })
  try {
    return { fd, mountpoint, connection: shakeHands(fd, policy) }
  } catch (error) {
    addon.umount(Buffer.from(mountpoint), 0)
    addon.closeFd(fd)
    throw error
  }
}

// On this thread and before any worker knows the descriptor: INIT is the first request of a connection and the only one until it is answered.
function shakeHands(fd: number, policy: ConnectionPolicy): Connection {
  const addon = native()
  const input = new Uint8Array(REQUEST_SLOT)
  const output = new Uint8Array(4096)
  const core = new FuseCore(new FileSystemTable(), policy, { uid: 0, gid: 0 }, input, output)
  const set = addon.waitSetCreate()
  try {
    addon.waitSetAdd(set, fd, 1, 0)
    const row = new Int32Array(4)
    const rows = addon.exchange(set, output, new Int32Array(7), 0, input, REQUEST_SLOT, row, HANDSHAKE_TIMEOUT_MS, new Int32Array(1))
    const length = row[3]!
    const opcode = rows === 1 && length >= inHeader.size ? dataViewOf(input).getUint32(inHeader.offsetOf.opcode, true) : -1
    if (opcode !== FUSE_OP.INIT) throw new CodedError('SERVE_MOUNT', 'the kernel did not begin with FUSE_INIT', { rows, length, opcode })
    core.handle(0, length, 0)
    const sent = addon.fuseReply(fd, output.subarray(0, core.replyLength), -1, 0, 0)
    if (!core.connection || sent < 0) throw new CodedError('SERVE_MOUNT', 'the kernel and this program do not agree on a FUSE protocol', { sent })
    return core.connection
  } finally {
    addon.closeFd(set)
  }
}

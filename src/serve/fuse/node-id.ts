// Node ids: high word = serial of the mount (counted from 1, never reused), low word = the image's nid. Two words, never a bigint.
// The ids are a function of mount and image alone, so a daemon that takes a connection over knows every id the kernel holds.

import { CodedError } from '../../core/errors.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'

/** LIMIT: nids fill one word. A RAFS v6 nid is offset / 32, so this bounds a bootstrap to 128 GiB. */
export const MAX_NID = 0xffff_ffff
/** LIMIT: serials fill the other word, and 0 belongs to FUSE_ROOT_ID. */
export const MAX_MOUNT_SERIAL = 0xffff_ffff

/** Whether (high, low) is the root of the connection rather than a packed id. */
export function isRootId(high: number, low: number): boolean {
  return high === 0 && low === FUSE_ROOT_ID
}

/** The next unused mount serial. @throws SERVE_STATE after 2^32 - 1 mounts */
export function nextSerial(last: number): number {
  if (last >= MAX_MOUNT_SERIAL) throw new CodedError('SERVE_STATE', 'mount serials are used up: restart the daemon', { last })
  return last + 1
}

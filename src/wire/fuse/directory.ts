// Directory records. A name follows each, padded with zeros to a multiple of 8 bytes.
// SPEC: linux include/uapi/linux/fuse.h `struct fuse_dirent`, `struct fuse_direntplus`.

import { bytes, struct, u32, type Decoded } from '../../core/struct.ts'

export type FuseDirent = Decoded<typeof fuseDirent>
export const fuseDirent = struct('FuseDirent', 24, [
  [  0, 'inoLow',     u32, 'ino'],
  [  4, 'inoHigh',    u32, 'ino: high word'],
  [  8, 'offsetLow',  u32, 'off: where the next read goes on'],
  [ 12, 'offsetHigh', u32, 'off: high word'],
  [ 16, 'nameLength', u32, 'namelen: bytes'],
  [ 20, 'type',       u32, 'type: st_mode >> 12'],
])

export const fuseDirentPlus = struct('FuseDirentPlus', 152, [
  [  0, 'entry',      bytes(128), 'entry_out: a FuseEntryOut; node id 0 means "attributes unknown"'],
  [128, 'dirent',     bytes(24), 'dirent: a FuseDirent'],
])

/** Records begin at multiples of this. SPEC: FUSE_DIRENT_ALIGN. */
export const FUSE_DIRENT_ALIGNMENT = 8

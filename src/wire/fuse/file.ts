// Open files, reads, file system statistics and extended attributes.
// SPEC: linux include/uapi/linux/fuse.h.

import { reserved, struct, u32, u64, type Decoded } from '../../core/struct.ts'

export type OpenOut = Decoded<typeof openOut>
export const openOut = struct('FuseOpenOut', 16, [
  [ 0, 'handle',     u64, 'fh'],
  [ 8, 'flags',      u32, 'open_flags: see FOPEN'],
  [12, '_padding',   reserved(4), 'padding: the backing id of a passthrough file since 7.40'],
])

/** SPEC: fuse.h FOPEN_*. */
export const FOPEN = { DIRECT_IO: 1 << 0, KEEP_CACHE: 1 << 1, NONSEEKABLE: 1 << 2, CACHE_DIR: 1 << 3, NOFLUSH: 1 << 5 } as const

export type ReadIn = Decoded<typeof readIn>
/** READ, READDIR and READDIRPLUS. */
export const readIn = struct('FuseReadIn', 40, [
  [ 0, 'handle',     u64, 'fh'],
  [ 8, 'offsetLow',  u32, 'offset: bytes; of a directory what the last entry said'],
  [12, 'offsetHigh', u32, 'offset: high word'],
  [16, 'size',       u32, 'size: of the reply after its header'],
  [20, 'readFlags',  u32, 'read_flags'],
  [24, 'lockOwner',  u64, 'lock_owner'],
  [32, 'flags',      u32, 'flags: of the open file'],
  [36, '_padding',   reserved(4), 'padding'],
])

export type Kstatfs = Decoded<typeof kstatfs>
export const kstatfs = struct('FuseKstatfs', 80, [
  [ 0, 'blocks',     u64, 'blocks: of frsize bytes'],
  [ 8, 'freeBlocks', u64, 'bfree'],
  [16, 'available',  u64, 'bavail'],
  [24, 'files',      u64, 'files'],
  [32, 'freeFiles',  u64, 'ffree'],
  [40, 'blockSize',  u32, 'bsize'],
  [44, 'nameLength', u32, 'namelen'],
  [48, 'fragment',   u32, 'frsize'],
  [52, '_padding',   reserved(4), 'padding'],
  [56, '_spare',     reserved(24), 'spare'],
])

export const getxattrIn = struct('FuseGetxattrIn', 8, [
  [ 0, 'size',       u32, 'size: of the caller\'s buffer, 0 asks for the length'],
  [ 4, '_padding',   reserved(4), 'padding'],
])

export const getxattrOut = struct('FuseGetxattrOut', 8, [
  [ 0, 'size',       u32, 'size: of the value or list'],
  [ 4, '_padding',   reserved(4), 'padding'],
])

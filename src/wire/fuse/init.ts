// The handshake: FUSE_INIT and its capability bits.
// SPEC: linux include/uapi/linux/fuse.h `struct fuse_init_in`, `struct fuse_init_out`, FUSE_INIT flags.

import { reserved, struct, u16, u32, type Decoded } from '../../core/struct.ts'

export const FUSE_KERNEL_VERSION = 7
/** The minor version this code speaks. */
export const FUSE_KERNEL_MINOR_VERSION = 38

export type InitIn = Decoded<typeof initIn>
export const initIn = struct('FuseInitIn', 64, [
  [ 0, 'major',               u32, 'major'],
  [ 4, 'minor',               u32, 'minor'],
  [ 8, 'maxReadahead',        u32, 'max_readahead: bytes'],
  [12, 'flags',               u32, 'flags: see FUSE_INIT_FLAG'],
  [16, 'flags2',              u32, 'flags2: bits 32..63, when FUSE_INIT_EXT is set'],
  [20, '_unused',             reserved(44), 'unused'],
])

export type InitOut = Decoded<typeof initOut>
export const initOut = struct('FuseInitOut', 64, [
  [ 0, 'major',               u32, 'major'],
  [ 4, 'minor',               u32, 'minor'],
  [ 8, 'maxReadahead',        u32, 'max_readahead: bytes'],
  [12, 'flags',               u32, 'flags: accepted ones'],
  [16, 'maxBackground',       u16, 'max_background: requests in flight without a waiting task'],
  [18, 'congestionThreshold', u16, 'congestion_threshold'],
  [20, 'maxWrite',            u32, 'max_write: bytes; a request buffer is at least this + 4096'],
  [24, 'timeGranularity',     u32, 'time_gran: nanoseconds'],
  [28, 'maxPages',            u16, 'max_pages: of one request, with FUSE_MAX_PAGES'],
  [30, 'mapAlignment',        u16, 'map_alignment: DAX only'],
  [32, 'flags2',              u32, 'flags2: accepted ones'],
  [36, '_unused',             reserved(28), 'unused'],
])

/** SPEC: fuse.h FUSE_INIT flags, bits 0..31 (`flags`). */
export const FUSE_INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  INIT_EXT: 1 << 30,
} as const

/** SPEC: fuse.h FUSE_INIT flags, bits 32..63 (`flags2`). */
export const FUSE_INIT_FLAG2 = {
  HAS_RESEND: 1 << 7,
  ALLOW_IDMAP: 1 << 8,
} as const

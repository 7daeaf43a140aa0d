// Requests that change a file system.
// SPEC: linux include/uapi/linux/fuse.h. Names follow their structure, NUL-terminated.

import { i32, reserved, struct, u32, u64, type Decoded } from '../../core/struct.ts'

export type SetattrIn = Decoded<typeof setattrIn>
export const setattrIn = struct('FuseSetattrIn', 88, [
  [ 0, 'valid',       u32, 'valid: which of the fields count, see FATTR'],
  [ 4, '_padding',    reserved(4), 'padding'],
  [ 8, 'handle',      u64, 'fh'],
  [16, 'size',        u64, 'size: bytes'],
  [24, 'lockOwner',   u64, 'lock_owner'],
  [32, 'atimeLow',    u32, 'atime: seconds, signed'],
  [36, 'atimeHigh',   i32, 'atime: high word'],
  [40, 'mtimeLow',    u32, 'mtime: seconds, signed'],
  [44, 'mtimeHigh',   i32, 'mtime: high word'],
  [48, 'ctime',       u64, 'ctime: of the kernel, with WRITEBACK_CACHE only'],
  [56, 'atimeNsec',   u32, 'atimensec'],
  [60, 'mtimeNsec',   u32, 'mtimensec'],
  [64, 'ctimeNsec',   u32, 'ctimensec'],
  [68, 'mode',        u32, 'mode'],
  [72, '_unused4',    reserved(4), 'unused4'],
  [76, 'uid',         u32, 'uid'],
  [80, 'gid',         u32, 'gid'],
  [84, '_unused5',    reserved(4), 'unused5'],
])

/** SPEC: fuse.h FATTR_*. */
export const FATTR = {
  MODE: 1 << 0, UID: 1 << 1, GID: 1 << 2, SIZE: 1 << 3, ATIME: 1 << 4, MTIME: 1 << 5, FH: 1 << 6, ATIME_NOW: 1 << 7, MTIME_NOW: 1 << 8,
  LOCKOWNER: 1 << 9, CTIME: 1 << 10, KILL_SUIDGID: 1 << 11,
} as const

export const mknodIn = struct('FuseMknodIn', 16, [
  [ 0, 'mode',        u32, 'mode: type and permissions, less the umask unless DONT_MASK was agreed on'],
  [ 4, 'rdev',        u32, 'rdev: new encoding'],
  [ 8, 'umask',       u32, 'umask'],
  [12, '_padding',    reserved(4), 'padding'],
])

export const mkdirIn = struct('FuseMkdirIn', 8, [
  [ 0, 'mode',        u32, 'mode'],
  [ 4, 'umask',       u32, 'umask'],
])

/** RENAME: both names follow. */
export const renameIn = struct('FuseRenameIn', 8, [
  [ 0, 'parentLow',   u32, 'newdir: node of the new directory'],
  [ 4, 'parentHigh',  u32, 'newdir: high word'],
])

/** RENAME2: both names follow. */
export const rename2In = struct('FuseRename2In', 16, [
  [ 0, 'parentLow',   u32, 'newdir: node of the new directory'],
  [ 4, 'parentHigh',  u32, 'newdir: high word'],
  [ 8, 'flags',       u32, 'flags: as renameat2(2)'],
  [12, '_padding',    reserved(4), 'padding'],
])

export const linkIn = struct('FuseLinkIn', 8, [
  [ 0, 'nodeLow',     u32, 'oldnodeid'],
  [ 4, 'nodeHigh',    u32, 'oldnodeid: high word'],
])

export const openIn = struct('FuseOpenIn', 8, [
  [ 0, 'flags',       u32, 'flags: as open(2)'],
  [ 4, 'openFlags',   u32, 'open_flags: FUSE_OPEN_KILL_SUIDGID'],
])

export const createIn = struct('FuseCreateIn', 16, [
  [ 0, 'flags',       u32, 'flags: as open(2)'],
  [ 4, 'mode',        u32, 'mode'],
  [ 8, 'umask',       u32, 'umask'],
  [12, 'openFlags',   u32, 'open_flags: FUSE_OPEN_KILL_SUIDGID'],
])

export const releaseIn = struct('FuseReleaseIn', 24, [
  [ 0, 'handle',      u64, 'fh'],
  [ 8, 'flags',       u32, 'flags: of the open file'],
  [12, 'releaseFlags', u32, 'release_flags'],
  [16, 'lockOwner',   u64, 'lock_owner'],
])

/** The bytes follow. */
export const writeIn = struct('FuseWriteIn', 40, [
  [ 0, 'handle',      u64, 'fh'],
  [ 8, 'offsetLow',   u32, 'offset: bytes; the end of the file for a descriptor that appends'],
  [12, 'offsetHigh',  u32, 'offset: high word'],
  [16, 'size',        u32, 'size: bytes that follow'],
  [20, 'writeFlags',  u32, 'write_flags'],
  [24, 'lockOwner',   u64, 'lock_owner'],
  [32, 'flags',       u32, 'flags: of the open file'],
  [36, '_padding',    reserved(4), 'padding'],
])

export const writeOut = struct('FuseWriteOut', 8, [
  [ 0, 'size',        u32, 'size: bytes written'],
  [ 4, '_padding',    reserved(4), 'padding'],
])

export const fsyncIn = struct('FuseFsyncIn', 16, [
  [ 0, 'handle',      u64, 'fh'],
  [ 8, 'flags',       u32, 'fsync_flags: bit 0: data only'],
  [12, '_padding',    reserved(4), 'padding'],
])

/** Name and value follow. The longer form of SETXATTR_EXT is not agreed on. */
export const setxattrIn = struct('FuseSetxattrIn', 8, [
  [ 0, 'size',        u32, 'size: of the value'],
  [ 4, 'flags',       u32, 'flags: as setxattr(2)'],
])

export const fallocateIn = struct('FuseFallocateIn', 32, [
  [ 0, 'handle',      u64, 'fh'],
  [ 8, 'offset',      u64, 'offset: bytes'],
  [16, 'length',      u64, 'length: bytes'],
  [24, 'mode',        u32, 'mode: as fallocate(2)'],
  [28, '_padding',    reserved(4), 'padding'],
])

export const lseekIn = struct('FuseLseekIn', 24, [
  [ 0, 'handle',      u64, 'fh'],
  [ 8, 'offset',      u64, 'offset: bytes'],
  [16, 'whence',      u32, 'whence: SEEK_DATA or SEEK_HOLE'],
  [20, '_padding',    reserved(4), 'padding'],
])

export const lseekOut = struct('FuseLseekOut', 8, [
  [ 0, 'offset',      u64, 'offset: bytes'],
])

export const copyFileRangeIn = struct('FuseCopyFileRangeIn', 56, [
  [ 0, 'handleIn',    u64, 'fh_in'],
  [ 8, 'offsetIn',    u64, 'off_in: bytes'],
  [16, 'nodeOutLow',  u32, 'nodeid_out'],
  [20, 'nodeOutHigh', u32, 'nodeid_out: high word'],
  [24, 'handleOut',   u64, 'fh_out'],
  [32, 'offsetOut',   u64, 'off_out: bytes'],
  [40, 'length',      u64, 'len: bytes'],
  [48, 'flags',       u64, 'flags'],
])

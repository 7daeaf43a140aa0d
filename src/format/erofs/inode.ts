// EROFS inodes, directory entries, chunk indexes and inline xattrs.
// SPEC: linux fs/erofs/erofs_fs.h; spec-rafs.md A.7 to A.9.

import { reserved, seconds64, size64, struct, u16, u32, u8, u64, type Decoded } from '../../core/struct.ts'

/** i_format bits 1..3. SPEC: erofs_fs.h EROFS_INODE_*. */
export const EROFS_LAYOUT = { flatPlain: 0, flatInline: 2, chunkBased: 4 } as const
/** Chunk format word: 8-byte chunk indexes follow the inode. */
export const EROFS_CHUNK_FORMAT_INDEXES = 0x20

export type CompactInode = Decoded<typeof compactInode>
export const compactInode = struct('CompactInode', 32, [
  [  0, 'format',     u16, 'i_format: bit 0 = 0, bits 1..3 layout'],
  [  2, 'xattrCount', u16, 'i_xattr_icount: (bytes - 12) / 4 + 1, 0 for none'],
  [  4, 'mode',       u16, 'i_mode: type and 12 permission bits'],
  [  6, 'nlink',      u16, 'i_nlink'],
  [  8, 'size',       u32, 'i_size: bytes'],
  [ 12, '_reserved1', reserved(4), 'i_reserved'],
  [ 16, 'union',      u32, 'i_u: first block, chunk format or device number'],
  [ 20, 'ino',        u32, 'i_ino: build number, 1 = root'],
  [ 24, 'uid',        u16, 'i_uid'],
  [ 26, 'gid',        u16, 'i_gid'],
  [ 28, '_reserved2', reserved(4), 'i_reserved2'],
])

export type ExtendedInode = Decoded<typeof extendedInode>
export const extendedInode = struct('ExtendedInode', 64, [
  [  0, 'format',     u16, 'i_format: bit 0 = 1, bits 1..3 layout'],
  [  2, 'xattrCount', u16, 'i_xattr_icount: (bytes - 12) / 4 + 1, 0 for none'],
  [  4, 'mode',       u16, 'i_mode: type and 12 permission bits'],
  [  6, '_reserved1', reserved(2), 'i_reserved'],
  [  8, 'size',       size64, 'i_size: bytes'],
  [ 16, 'union',      u32, 'i_u: first block, chunk format or device number'],
  [ 20, 'ino',        u32, 'i_ino: build number, 1 = root'],
  [ 24, 'uid',        u32, 'i_uid'],
  [ 28, 'gid',        u32, 'i_gid'],
  [ 32, 'mtime',      seconds64, 'i_mtime: seconds'],
  [ 40, 'mtimeNsec',  u32, 'i_mtime_nsec'],
  [ 44, 'nlink',      u32, 'i_nlink'],
  [ 48, 'layerMark',  u8,  'i_reserved2[0]: 0; in a layer that is yet to be merged see LAYER_MARK. Every reader ignores it'],
  [ 49, '_reserved2', reserved(15), 'i_reserved2'],
])

export type Dirent = Decoded<typeof dirent>
export const dirent = struct('Dirent', 12, [
  [ 0, 'nid',        u64, 'nid'],
  [ 8, 'nameOffset', u16, 'nameoff: in the block; the first one is 12 x the number of entries'],
  [10, 'fileType',   u8,  'file_type'],
  [11, '_reserved',  reserved(1), 'reserved'],
])

/** SPEC: erofs_fs.h EROFS_FT_*. */
export const EROFS_FT = { unknown: 0, regular: 1, directory: 2, character: 3, block: 4, fifo: 5, socket: 6, symlink: 7 } as const

/**
 * SPEC: RafsV6InodeChunkAddr over erofs `struct erofs_inode_chunk_index`. The blob's chunk index overlays startblk_hi (low half) and the
 * upper byte of device_id, which the kernel ignores for images with at most 254 devices.
 */
export const chunkIndex = struct('ChunkIndex', 8, [
  [0, 'indexLow',  u16, 'ci_index & 0xffff'],
  [2, 'device',    u8,  'device_id low byte: blob index + 1'],
  [3, 'indexHigh', u8,  'ci_index >> 16'],
  [4, 'block',     u32, 'startblk_lo: uncompressed offset / block size'],
])

export const xattrHeader = struct('XattrHeader', 12, [
  [0, 'nameFilter',  u32, 'h_name_filter: 0'],
  [4, 'sharedCount', u8,  'h_shared_count: 0, RAFS has inline xattrs only'],
  [5, '_reserved',   reserved(7), 'h_reserved2'],
])

export const xattrEntry = struct('XattrEntry', 4, [
  [0, 'nameLength', u8,  'e_name_len: of the name without its prefix'],
  [1, 'nameIndex',  u8,  'e_name_index: prefix number'],
  [2, 'valueSize',  u16, 'e_value_size'],
])

/** Prefix numbers in the order in which they are tried. SPEC: erofs_fs.h EROFS_XATTR_INDEX_*. */
export const XATTR_PREFIXES = [
  [1, 'user.'],
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
] as const

/** File type bits of st_mode. SPEC: inode(7). */
export const S_IFMT = 0o170000
export const S_IFSOCK = 0o140000
export const S_IFLNK = 0o120000
export const S_IFREG = 0o100000
export const S_IFBLK = 0o060000
export const S_IFDIR = 0o040000
export const S_IFCHR = 0o020000
export const S_IFIFO = 0o010000

/** EROFS file type of a mode; `unknown` for a type that does not exist. */
export function fileTypeOf(mode: number): number {
  switch (mode & S_IFMT) {
    case S_IFREG: return EROFS_FT.regular
    case S_IFDIR: return EROFS_FT.directory
    case S_IFCHR: return EROFS_FT.character
    case S_IFBLK: return EROFS_FT.block
    case S_IFIFO: return EROFS_FT.fifo
    case S_IFSOCK: return EROFS_FT.socket
    case S_IFLNK: return EROFS_FT.symlink
    default: return EROFS_FT.unknown
  }
}

/** Device number as the kernel's new encoding, which is also the low word of glibc's makedev. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0
}

/** [major, minor] of `encodeDevice`. */
export function decodeDevice(rdev: number): readonly [major: number, minor: number] {
  return [(rdev >>> 8) & 0xfff, (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)]
}

// The table of contents at the end of a blob, and the tar headers that follow (not precede) each region.
// SPEC: nydus storage/src/meta/toc.rs, builder/src/core/context.rs write_tar_header; spec-rafs.md C.1, C.8.

import { CodedError } from '../../core/errors.ts'
import { asciiz, bytes, reserved, size64, struct, u32, type Decoded } from '../../core/struct.ts'
import { number as tarNumber } from '../tar/header.ts'

export type TocEntry = Decoded<typeof tocEntry>
export const tocEntry = struct('TocEntry', 128, [
  [  0, 'flags',            u32, 'flags: see TOC_FLAG'],
  [  4, '_reserved1',       reserved(4), 'reserved1'],
  [  8, 'name',             asciiz(16), 'name'],
  [ 24, 'digest',           bytes(32), 'uncompressed_digest: sha256'],
  [ 56, 'compressedOffset', size64, 'compressed_offset: in the blob'],
  [ 64, 'compressedSize',   size64, 'compressed_size'],
  [ 72, 'uncompressedSize', size64, 'uncompressed_size'],
  [ 80, '_reserved2',       reserved(48), 'reserved2: may hold garbage in old blobs'],
])

export const TOC_FLAG = { none: 1, zstd: 2, lz4: 4 } as const

/** Names of the regions. */
export const TOC_NAME = {
  image: 'image.blob',
  meta: 'blob.meta',
  metaHeader: 'blob.meta.header',
  digest: 'blob.digest',
  boot: 'image.boot',
  toc: 'rafs.blob.toc',
} as const

/** GNU tar header as tar-rs' `Header::new_gnu` leaves it: mode, uid and gid stay NUL. */
export const gnuTarHeader = struct('GnuTarHeader', 512, [
  [  0, 'name',      asciiz(100), 'name'],
  [100, '_ids',      reserved(24), 'mode, uid, gid: NUL'],
  [124, 'size',      tarNumber(12), 'size: of the region in front'],
  [136, 'mtime',     asciiz(12), 'mtime: eleven zeros'],
  [148, 'checksum',  asciiz(8), 'chksum: 7 octal digits and NUL'],
  [156, 'typeflag',  asciiz(1), 'typeflag: 0'],
  [157, '_link',     reserved(100), 'linkname'],
  [257, 'magic',     asciiz(8), 'magic and version: "ustar  " and NUL'],
  [265, '_rest',     reserved(247), 'uname and the rest: NUL'],
])

/** The entries as they stand in a blob; their tar header (`tarHeader(TOC_NAME.toc, size)`) follows them. FORMAT_OUT_OF_RANGE. */
export function encodeToc(entries: readonly TocEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * tocEntry.size)
  entries.forEach((entry, i) => { tocEntry.encode(entry, bytes, i * tocEntry.size) })
  return bytes
}

/** The entries of `toc`, a table of contents with its tar header. FORMAT_TRUNCATED when it is not a whole number of them. */
export function readTocEntries(toc: Uint8Array): TocEntry[] {
  const count = (toc.length - gnuTarHeader.size) / tocEntry.size
  if (!Number.isInteger(count) || count < 0) throw new CodedError('FORMAT_TRUNCATED', `a table of contents of ${toc.length} bytes`, { size: toc.length })
  return Array.from({ length: count }, (_, i) => tocEntry.decode(toc, i * tocEntry.size))
}

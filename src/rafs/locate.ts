// Where a file's bytes lie in local cache files, decided from memory alone: the hit path of every worker.

import type { BootstrapView, Inode } from '../format/rafs-v6/bootstrap-view.ts'

/** Receives extents in file order. */
export interface ExtentSink { push(fd: number, offset: number, length: number): void }

/** A blob's cache file and what is ready in it. */
export interface ReadableBlob {
  readonly fd: number
  /** Whether the first `length` bytes of chunk `index` lie, verified, at `offset`. */
  has(index: number, offset: number, length: number): boolean
}

/** A part of a file that lies in one chunk. */
export interface Piece {
  readonly blobIndex: number
  readonly index: number
  /** Of the chunk in the cache file. */
  readonly chunkOffset: number
  /** The chunk's size in bytes, as the file's size has it. */
  readonly chunkSize: number
  /** Where the part begins in the chunk, and how long it is. */
  readonly from: number
  readonly length: number
}

/** The parts of [offset, offset + length) of a regular file, clipped to its size. FORMAT_* for damaged chunk addresses. */
export function* piecesOf(view: BootstrapView, inode: Inode, offset: number, length: number): Generator<Piece> {
  const { chunkSize } = view
  const end = Math.min(offset + length, inode.size)
  for (let at = offset; at < end;) {
    const i = Math.floor(at / chunkSize)
    const from = at - i * chunkSize
    const { blobIndex, index, uncompressedOffset } = view.chunkAt(inode, i)
    const size = Math.min(chunkSize, inode.size - i * chunkSize)
    const piece = Math.min(size - from, end - at)
    yield { blobIndex, index, chunkOffset: uncompressedOffset, chunkSize: size, from, length: piece }
    at += piece
  }
}

/**
 * Pushes where [offset, offset + length) of `inode`, clipped to its size, lies. False, with `extents` half filled, when some of it is not
 * ready. FORMAT_* for damaged chunk addresses.
 */
export function locate(view: BootstrapView, blobs: readonly (ReadableBlob | undefined)[], inode: Inode, range: { readonly offset: number; readonly length: number; readonly extents: ExtentSink }): boolean {
  for (const piece of piecesOf(view, inode, range.offset, range.length)) {
    const blob = blobs[piece.blobIndex]
    // the whole chunk, not the part: a file that claims more of a chunk than there is must not read its neighbour
    if (blob === undefined || !blob.has(piece.index, piece.chunkOffset, piece.chunkSize)) return false
    range.extents.push(blob.fd, piece.chunkOffset + piece.from, piece.length)
  }
  return true
}

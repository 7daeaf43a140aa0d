// The chunk table of a bootstrap, read in place: 80-byte rows in digest order, found by (blob, index) through an index of two typed arrays.
// SPEC: spec-rafs.md A.6.

import { dataViewOf } from '../../core/struct.ts'
import { chunkEntry, type ChunkEntry } from './chunk-table.ts'
import { MAX_CHUNKS_PER_BLOB } from './blob-records.ts'

const { digest: DIGEST, blobIndex: BLOB_INDEX, flags: FLAGS, compressedSize: COMPRESSED_SIZE, uncompressedSize: UNCOMPRESSED_SIZE,
  compressedOffset: COMPRESSED_OFFSET, uncompressedOffset: UNCOMPRESSED_OFFSET, index: INDEX, crc32: CRC32 } = chunkEntry.offsetOf
const DIGEST_SIZE = 32
/** Half of a chunk index, which is below 2^24. */
const RADIX_BITS = 12

/** Rows are numbered from 0 in table order. Where a blob's chunk has several rows, the last one counts, as upstream's map has it. */
export class ChunkTableView {
  readonly count: number
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #blobCount: number
  #order: BlobOrder | undefined

  /** `bytes` is exactly the table; `blobCount` is that of the blob table. */
  constructor(bytes: Uint8Array, blobCount: number) {
    this.count = Math.floor(bytes.length / chunkEntry.size)
    this.#bytes = bytes
    this.#view = dataViewOf(bytes)
    this.#blobCount = blobCount
  }

  /** Row of chunk `index` of blob `blobIndex`, or -1. */
  rowOf(blobIndex: number, index: number): number {
    const rows = this.rowsOf(blobIndex)
    let low = 0
    let high = rows.length
    while (low < high) { // the last row whose chunk index is not above `index`
      const middle = (low + high) >>> 1
      if (this.index(rows[middle]!) > index) high = middle
      else low = middle + 1
    }
    return low > 0 && this.index(rows[low - 1]!) === index ? rows[low - 1]! : -1
  }

  /** Rows of one blob, by ascending chunk index; rows with an impossible blob or index belong to none. */
  rowsOf(blobIndex: number): Uint32Array {
    this.#order ??= orderByBlob(this, this.#blobCount)
    const { rows, starts } = this.#order
    return rows.subarray(starts[blobIndex] ?? 0, starts[blobIndex + 1] ?? 0)
  }

  entry(row: number): ChunkEntry {
    return chunkEntry.decode(this.#bytes, row * chunkEntry.size)
  }

  /** The row as it is stored, a view. */
  record(row: number): Uint8Array {
    return this.#bytes.subarray(row * chunkEntry.size, (row + 1) * chunkEntry.size)
  }

  /** 32 bytes, a view. */
  digest(row: number): Uint8Array {
    const at = row * chunkEntry.size + DIGEST
    return this.#bytes.subarray(at, at + DIGEST_SIZE)
  }

  blobIndex(row: number): number { return this.#view.getUint32(row * chunkEntry.size + BLOB_INDEX, true) }
  index(row: number): number { return this.#view.getUint32(row * chunkEntry.size + INDEX, true) }
  flags(row: number): number { return this.#view.getUint32(row * chunkEntry.size + FLAGS, true) }
  compressedSize(row: number): number { return this.#view.getUint32(row * chunkEntry.size + COMPRESSED_SIZE, true) }
  uncompressedSize(row: number): number { return this.#view.getUint32(row * chunkEntry.size + UNCOMPRESSED_SIZE, true) }
  crc32(row: number): number { return this.#view.getUint32(row * chunkEntry.size + CRC32, true) }
  /** May be above 2^53, and then inexact: it is only compared with values that are below. */
  compressedOffset(row: number): number { return this.#wide(row * chunkEntry.size + COMPRESSED_OFFSET) }
  /** See `compressedOffset`. */
  uncompressedOffset(row: number): number { return this.#wide(row * chunkEntry.size + UNCOMPRESSED_OFFSET) }

  #wide(at: number): number {
    return this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true)
  }
}

interface BlobOrder {
  /** Row numbers by (blob, chunk index). */
  readonly rows: Uint32Array
  /** Where each blob's rows start, and the end. */
  readonly starts: Uint32Array
}

// A radix sort: linear, and no input makes it slower, which a hash table could not promise.
function orderByBlob(table: ChunkTableView, blobCount: number): BlobOrder {
  let rows: Uint32Array = new Uint32Array(table.count)
  let kept = 0
  for (let row = 0; row < table.count; row++) {
    if (table.blobIndex(row) < blobCount && table.index(row) < MAX_CHUNKS_PER_BLOB) rows[kept++] = row
  }
  const low = (1 << RADIX_BITS) - 1
  rows = sortBy(rows.subarray(0, kept), low + 1, (row) => table.index(row) & low).rows
  rows = sortBy(rows, low + 1, (row) => table.index(row) >>> RADIX_BITS).rows
  return sortBy(rows, blobCount, (row) => table.blobIndex(row))
}

/** Stable counting sort by a key below `keys`. */
function sortBy(rows: Uint32Array, keys: number, keyOf: (row: number) => number): BlobOrder {
  const starts = new Uint32Array(keys + 1)
  for (const row of rows) starts[keyOf(row) + 1]!++
  for (let key = 1; key <= keys; key++) starts[key]! += starts[key - 1]!
  const next = starts.slice()
  const sorted = new Uint32Array(rows.length)
  for (const row of rows) sorted[next[keyOf(row)]!++] = row
  return { rows: sorted, starts }
}

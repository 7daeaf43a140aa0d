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

/** LIMIT: places by chunk index for each row; where indices are further apart than that, rows are sorted. */
const MAX_PLACES = 4

function orderByBlob(table: ChunkTableView, blobCount: number): BlobOrder {
  const { count } = table
  const blobs = new Uint32Array(count)
  const indices = new Uint32Array(count)
  const ends = new Uint32Array(blobCount)
  for (let row = 0; row < count; row++) {
    const blob = blobs[row] = table.blobIndex(row)
    const index = indices[row] = table.index(row)
    if (blob < blobCount && index < MAX_CHUNKS_PER_BLOB && index >= ends[blob]!) ends[blob] = index + 1
  }
  return placed(blobs, indices, ends) ?? sorted(blobs, indices, blobCount)
}

/** The order, each row put to the place of its index: one pass where a sort takes three. Undefined where places are many, or two rows have the same one. */
function placed(blobs: Uint32Array, indices: Uint32Array, ends: Uint32Array): BlobOrder | undefined {
  const count = blobs.length
  const starts = new Uint32Array(ends.length + 1)
  const bases = new Float64Array(ends.length)
  let room = 0
  for (let blob = 0; blob < ends.length; blob++) {
    bases[blob] = room
    room += ends[blob]!
  }
  if (room > MAX_PLACES * count) return undefined
  const places = new Uint32Array(room)
  for (let row = 0; row < count; row++) {
    const blob = blobs[row]!
    if (blob >= ends.length || indices[row]! >= MAX_CHUNKS_PER_BLOB) continue
    const at = bases[blob]! + indices[row]!
    if (places[at] !== 0) return undefined
    places[at] = row + 1
    starts[blob + 1]!++
  }
  for (let blob = 0; blob < ends.length; blob++) starts[blob + 1]! += starts[blob]!
  const rows = new Uint32Array(starts[ends.length]!)
  let kept = 0
  for (let at = 0; at < room; at++) if (places[at] !== 0) rows[kept++] = places[at]! - 1
  return { rows, starts }
}

// A radix sort: linear, and no input makes it slower, which a hash table could not promise. Keys are copied first: reading them through the
// view in each pass took four times as long (bench/serve/start).
function sorted(blobs: Uint32Array, indices: Uint32Array, blobCount: number): BlobOrder {
  const count = blobs.length
  let rows: Uint32Array = new Uint32Array(count)
  let kept = 0
  for (let row = 0; row < count; row++) if (blobs[row]! < blobCount && indices[row]! < MAX_CHUNKS_PER_BLOB) rows[kept++] = row
  const digits = 1 << RADIX_BITS
  rows = sortBy(rows.subarray(0, kept), indices, { shift: 0, digits }).rows
  rows = sortBy(rows, indices, { shift: RADIX_BITS, digits }).rows
  return sortBy(rows, blobs, { shift: 0, digits: roundUpToPowerOfTwo(blobCount) })
}

/** Stable counting sort of `rows` by (key >>> shift) modulo `digits`, a power of two; `keys` are by row number. */
function sortBy(rows: Uint32Array, keys: Uint32Array, { shift, digits }: { shift: number; digits: number }): BlobOrder {
  const mask = digits - 1
  const starts = new Uint32Array(digits + 1)
  for (let i = 0; i < rows.length; i++) starts[((keys[rows[i]!]! >>> shift) & mask) + 1]!++
  for (let digit = 1; digit <= digits; digit++) starts[digit]! += starts[digit - 1]!
  const next = starts.slice()
  const sorted = new Uint32Array(rows.length)
  for (let i = 0; i < rows.length; i++) sorted[next[(keys[rows[i]!]! >>> shift) & mask]!++] = rows[i]!
  return { rows: sorted, starts }
}

function roundUpToPowerOfTwo(count: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, count)))
}

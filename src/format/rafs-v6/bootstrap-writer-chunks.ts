// The chunks of an image while it is built: the very 80-byte records of the chunk table, in pages, so that 400,000 of them cost 32 MiB
// and no object. SPEC: nydus rafs/src/metadata/layout/v5.rs RafsV5ChunkInfo; spec-rafs.md A.6.

import { dataViewOf } from '../../core/struct.ts'
import { chunkEntry } from './chunk-table.ts'

/** LIMIT: records a page, so that growing never copies and a small image takes one 320 KiB page. */
const PAGE_RECORDS = 4096
const RECORD = chunkEntry.size
const at = chunkEntry.offsetOf

interface Page { readonly bytes: Uint8Array; readonly view: DataView }

/** Append-only store of chunk records; a chunk's id is its position. */
export class ChunkStore {
  readonly #pages: Page[] = []
  #count = 0

  /** Number of records. */
  get count(): number {
    return this.#count
  }

  /** A zeroed record; returns its id. */
  add(): number {
    if (this.#count === this.#pages.length * PAGE_RECORDS) {
      const bytes = new Uint8Array(PAGE_RECORDS * RECORD)
      this.#pages.push({ bytes, view: dataViewOf(bytes) })
    }
    return this.#count++
  }

  /** Appends a copy of an encoded record (80 bytes at `offset` of `bytes`). */
  addRecord(bytes: Uint8Array, offset: number): number {
    const id = this.add()
    this.#pages[Math.floor(id / PAGE_RECORDS)]!.bytes.set(bytes.subarray(offset, offset + RECORD), (id % PAGE_RECORDS) * RECORD)
    return id
  }

  /** The record's bytes, not a copy. */
  record(id: number): Uint8Array {
    const offset = (id % PAGE_RECORDS) * RECORD
    return this.#page(id).bytes.subarray(offset, offset + RECORD)
  }

  setDigest(id: number, source: Uint8Array, offset: number): void {
    this.#page(id).bytes.set(source.subarray(offset, offset + 32), (id % PAGE_RECORDS) * RECORD + at.digest)
  }

  /** Big-endian word `index` (0..7) of the digest: comparing words compares bytes. */
  digestWord(id: number, index: number): number {
    return this.#page(id).view.getUint32((id % PAGE_RECORDS) * RECORD + at.digest + index * 4, false)
  }

  digestEquals(id: number, other: Uint8Array, offset: number): boolean {
    const bytes = this.#page(id).bytes
    const start = (id % PAGE_RECORDS) * RECORD + at.digest
    for (let i = 0; i < 32; i++) if (bytes[start + i] !== other[offset + i]) return false
    return true
  }

  blobIndex(id: number): number { return this.#u32(id, at.blobIndex) }
  setBlobIndex(id: number, value: number): void { this.#setU32(id, at.blobIndex, value) }
  flags(id: number): number { return this.#u32(id, at.flags) }
  setFlags(id: number, value: number): void { this.#setU32(id, at.flags, value) }
  compressedSize(id: number): number { return this.#u32(id, at.compressedSize) }
  setCompressedSize(id: number, value: number): void { this.#setU32(id, at.compressedSize, value) }
  uncompressedSize(id: number): number { return this.#u32(id, at.uncompressedSize) }
  setUncompressedSize(id: number, value: number): void { this.#setU32(id, at.uncompressedSize, value) }
  compressedOffset(id: number): number { return this.#u64(id, at.compressedOffset) }
  setCompressedOffset(id: number, value: number): void { this.#setU64(id, at.compressedOffset, value) }
  uncompressedOffset(id: number): number { return this.#u64(id, at.uncompressedOffset) }
  setUncompressedOffset(id: number, value: number): void { this.#setU64(id, at.uncompressedOffset, value) }
  fileOffset(id: number): number { return this.#u64(id, at.fileOffset) }
  index(id: number): number { return this.#u32(id, at.index) }
  setIndex(id: number, value: number): void { this.#setU32(id, at.index, value) }
  crc32(id: number): number { return this.#u32(id, at.crc32) }
  setCrc32(id: number, value: number): void { this.#setU32(id, at.crc32, value) }

  #page(id: number): Page {
    return this.#pages[Math.floor(id / PAGE_RECORDS)]!
  }

  #u32(id: number, field: number): number {
    return this.#page(id).view.getUint32((id % PAGE_RECORDS) * RECORD + field, true)
  }

  #setU32(id: number, field: number, value: number): void {
    this.#page(id).view.setUint32((id % PAGE_RECORDS) * RECORD + field, value, true)
  }

  #u64(id: number, field: number): number {
    const { view } = this.#page(id)
    const offset = (id % PAGE_RECORDS) * RECORD + field
    return view.getUint32(offset + 4, true) * 2 ** 32 + view.getUint32(offset, true)
  }

  #setU64(id: number, field: number, value: number): void {
    const { view } = this.#page(id)
    const offset = (id % PAGE_RECORDS) * RECORD + field
    view.setUint32(offset, value % 2 ** 32, true)
    view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true)
  }
}

/** Bytewise order of the digests of two records: negative, 0 or positive. */
export function compareDigests(store: ChunkStore, a: number, b: number): number {
  for (let word = 0; word < 8; word++) {
    const difference = store.digestWord(a, word) - store.digestWord(b, word)
    if (difference !== 0) return difference
  }
  return 0
}

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../../../test/support/expect.ts'
import { below, randomOf, survives } from '../../../test/support/hostile.ts'
import { bootstrapOf, readableCases } from '../../../test/support/vectors.ts'
import { decompress } from '../../native/codecs.ts'
import { BLOB_FEATURE } from '../rafs-v6/blob-table.ts'
import { BootstrapView, type BlobRecord } from '../rafs-v6/bootstrap-view.ts'
import { crossCheck } from '../rafs-v6/cross-check.ts'
import { ChunkInfoArray, type ChunkInfoOwner } from './chunk-info-array.ts'
import { ChunkInfoBuilder } from './chunk-info-builder.ts'
import { blobMetaHeader } from './chunk-info.ts'

const openCase = (name: string) => { const { bytes, blobIdFromName } = bootstrapOf(name); return BootstrapView.open(bytes, { blobIdFromName }) }

/** Uncompressed chunk information and header of a blob, straight from where the blob table says. */
function storedInfo({ blobId, entry }: BlobRecord): { bytes: Uint8Array; headerBytes: Uint8Array } {
  const blob = readFileSync(path.join(VECTORS, 'blobs', blobId))
  const end = entry.ciOffset + entry.ciCompressedSize
  const stored = blob.subarray(entry.ciOffset, end)
  const bytes = entry.ciCompressor === 0 ? stored : decompress(stored, { compressor: entry.ciCompressor as 1 | 2 | 3, size: entry.ciUncompressedSize })
  return { bytes, headerBytes: blob.subarray(end, end + blobMetaHeader.size) }
}
function arrayOf(record: BlobRecord): ChunkInfoArray {
  const { bytes, headerBytes } = storedInfo(record)
  return ChunkInfoArray.decode(bytes, record, blobMetaHeader.decode(headerBytes))
}
const caseBlobs = readableCases().filter((name) => name !== 'blob-cache-dir').flatMap((name) => openCase(name).blobs.map((record) => [name, record.index] as const))

describe('chunk information of upstream\'s blobs', () => {
  it.each(caseBlobs)('of %s, blob %i, is read and agrees with the chunk table', (name, index) => {
    const view = openCase(name)
    const array = arrayOf(view.blobs[index]!)
    if (name === 'chunk-dict-generated' && index === 1) {
      // upstream's generator of dictionaries renumbers chunks; its daemon aborts on the image
      expect(() => crossCheck(view, index, array)).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
      return
    }
    expect(array.count).toBe(view.blobs[index]!.entry.chunkCount)
    crossCheck(view, index, array)
  })

  it('re-encodes V1 and batches byte for byte', () => {
    for (const name of ['v6-rich-zstd', 'v6-chunk16m', 'v6-batch-1m', 'v6-batch-4k-lz4']) {
      const [record] = openCase(name).blobs
      const { bytes, headerBytes } = storedInfo(record!)
      const array = arrayOf(record!)
      const builder = new ChunkInfoBuilder({ isV2: record!.isV2 })
      let lastBatch = -1
      for (let i = 0; i < array.count; i++) {
        const uncompressed = { uncompressedOffset: array.uncompressedOffset(i), uncompressedSize: array.uncompressedSize(i) }
        if (array.isBatch(i)) {
          if (lastBatch >= 0 && array.batchIndex(i) !== lastBatch) { const { compressedSize, uncompressedSize } = array.batch(lastBatch); builder.closeBatch(compressedSize, uncompressedSize) }
          lastBatch = array.batchIndex(i)
          builder.addMember({ ...uncompressed, compressedOffset: array.compressedOffset(i), batchOffset: array.batchOffset(i) })
        } else {
          builder.add({ ...uncompressed, compressedOffset: array.compressedOffset(i), compressedSize: array.compressedSize(i), isCompressed: array.isCompressed(i), crc32: array.crc32(i) ?? 0 })
        }
      }
      if (lastBatch >= 0) { const { compressedSize, uncompressedSize } = array.batch(lastBatch); builder.closeBatch(compressedSize, uncompressedSize) }
      expect(Buffer.from(builder.encode()).equals(bytes), name).toBe(true)
      const { features, ciCompressor, ciOffset, ciCompressedSize } = record!.entry
      expect(Buffer.from(builder.header({ features, ciCompressor, ciOffset, ciCompressedSize })).equals(headerBytes), name).toBe(true)
    }
  })
})

/** A blob of three chunks of 1000, 5000 and 4096 bytes. */
function small({ isV2 = false, features = 0 } = {}): { builder: ChunkInfoBuilder; owner: (builder: ChunkInfoBuilder) => ChunkInfoOwner } {
  const builder = new ChunkInfoBuilder({ isV2 })
  builder.add({ compressedOffset: 0, compressedSize: 600, uncompressedOffset: 0, uncompressedSize: 1000, isCompressed: true, crc32: 0xdeadbeef })
  builder.add({ compressedOffset: 600, compressedSize: 5000, uncompressedOffset: 4096, uncompressedSize: 5000, isCompressed: false })
  builder.add({ compressedOffset: 5600, compressedSize: 4000, uncompressedOffset: 12288, uncompressedSize: 4096, isCompressed: true })
  const owner = (of: ChunkInfoBuilder): ChunkInfoOwner => {
    const size = of.encode().length
    return {
      blobId: 'b', isV2, isBatch: (features & BLOB_FEATURE.batch) !== 0, isChunkDictionary: false, dataSize: 9600, compressor: 'zstd',
      entry: { chunkCount: of.count, uncompressedSize: 16384, ciCompressor: 0, ciOffset: 9600, ciCompressedSize: size, ciUncompressedSize: size },
    }
  }
  return { builder, owner }
}
const headerOf = (builder: ChunkInfoBuilder, features = 0) =>
  blobMetaHeader.decode(builder.header({ features, ciCompressor: 0, ciOffset: 9600, ciCompressedSize: builder.encode().length }))

describe('ChunkInfoArray', () => {
  it('reads a hand-packed V1 entry', () => {
    // size - 1 = 0xfffff (low 20) with 0x3 above; offset 0xabcd000; stored at 0x12345 in 0x54321 + 1 bytes
    const bytes = Buffer.alloc(16)
    bytes.writeBigUInt64LE((0xfffffn << 44n) | (0xabcdn << 12n) | (0x3n << 8n), 0)
    bytes.writeBigUInt64LE((0x54321n << 44n) | 0x12345n, 8)
    const owner: ChunkInfoOwner = {
      blobId: 'b', isV2: false, isBatch: false, isChunkDictionary: true, dataSize: 2 ** 24, compressor: 'zstd',
      entry: { chunkCount: 1, uncompressedSize: 2 ** 40, ciCompressor: 0, ciOffset: 0, ciCompressedSize: 16, ciUncompressedSize: 16 },
    }
    const array = ChunkInfoArray.decode(bytes, owner, blobMetaHeader.decode(blobMetaHeader.encode({
      magic: 0, magic2: 0, features: 0, ciCompressor: 0, ciEntries: 1, ciOffset: 0, ciCompressedSize: 16, ciUncompressedSize: 16, contextOffset: 0, contextSize: 0, contextCount: 0 })))
    expect([array.uncompressedSize(0), array.uncompressedOffset(0), array.compressedOffset(0), array.compressedSize(0), array.isCompressed(0), array.crc32(0)])
      .toEqual([0x400000, 0xabcd000, 0x12345, 0x54322, true, undefined])
  })

  it('reads a hand-packed V2 entry, whose stored size has no bias', () => {
    const bytes = Buffer.alloc(24)
    bytes.writeBigUInt64LE((0x11n << 56n) | (999n << 32n) | 0n, 0)
    bytes.writeBigUInt64LE((600n << 40n) | 5n, 8)
    bytes.writeBigUInt64LE(0xcafef00dn, 16)
    const owner: ChunkInfoOwner = {
      blobId: 'b', isV2: true, isBatch: false, isChunkDictionary: false, dataSize: 9600, compressor: 'zstd',
      entry: { chunkCount: 1, uncompressedSize: 4096, ciCompressor: 0, ciOffset: 9600, ciCompressedSize: 24, ciUncompressedSize: 24 },
    }
    const builder = new ChunkInfoBuilder({ isV2: true })
    builder.add({ compressedOffset: 5, compressedSize: 600, uncompressedOffset: 0, uncompressedSize: 1000, isCompressed: true, crc32: 0xcafef00d })
    expect(Buffer.from(builder.encode()).equals(bytes)).toBe(true)
    const array = ChunkInfoArray.decode(bytes, owner, headerOf(builder))
    expect([array.uncompressedSize(0), array.compressedOffset(0), array.compressedSize(0), array.isCompressed(0), array.isBatch(0), array.crc32(0)])
      .toEqual([1000, 5, 600, true, false, 0xcafef00d])
  })

  const faults: readonly (readonly [string, object | undefined, ((owner: ChunkInfoOwner) => ChunkInfoOwner) | undefined])[] = [
    ['a chunk behind the data', undefined, (owner) => ({ ...owner, dataSize: 9599 })],
    ['a chunk behind the decompressed blob', undefined, (owner) => ({ ...owner, entry: { ...owner.entry, uncompressedSize: 16383 } })],
    ['another number of chunks', undefined, (owner) => ({ ...owner, entry: { ...owner.entry, chunkCount: 2 } })],
    ['another place', undefined, (owner) => ({ ...owner, entry: { ...owner.entry, ciOffset: 9601 } })],
    ['a compressed chunk in a blob without compressor', undefined, (owner) => ({ ...owner, compressor: 'none' })],
    ['a gap', { compressedOffset: 9600, compressedSize: 1, uncompressedOffset: 20480, uncompressedSize: 1, isCompressed: false }, (owner) => ({ ...owner, dataSize: 9700, entry: { ...owner.entry, uncompressedSize: 2 ** 20 } })],
    ['an overlap', { compressedOffset: 9600, compressedSize: 1, uncompressedOffset: 12288, uncompressedSize: 1, isCompressed: false }, (owner) => ({ ...owner, dataSize: 9700, entry: { ...owner.entry, uncompressedSize: 2 ** 20 } })],
    ['chunks stored out of order', { compressedOffset: 100, compressedSize: 1, uncompressedOffset: 16384, uncompressedSize: 1, isCompressed: false }, (owner) => ({ ...owner, entry: { ...owner.entry, uncompressedSize: 2 ** 20 } })],
  ]
  it.each(faults)('refuses %s', (_what, extra, change) => {
    for (const isV2 of [false, true]) {
      const { builder, owner } = small({ isV2 })
      expect(() => ChunkInfoArray.decode(builder.encode(), owner(builder), headerOf(builder))).not.toThrow()
      if (extra !== undefined) builder.add(extra as Parameters<ChunkInfoBuilder['add']>[0])
      expect(() => ChunkInfoArray.decode(builder.encode(), change!(owner(builder)), headerOf(builder))).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
    }
  })

  it('refuses batch members outside of their batch, and batches outside of the data', () => {
    const build = ({ batchOffset = 0, compressedSize = 10, uncompressedSize = 100, close = true }) => {
      const features = BLOB_FEATURE.batch
      const { builder, owner } = small({ isV2: true, features })
      builder.addMember({ compressedOffset: 9590, uncompressedOffset: 16384, uncompressedSize: 50, batchOffset })
      if (close) builder.closeBatch(compressedSize, uncompressedSize)
      const of = owner(builder)
      return () => ChunkInfoArray.decode(builder.encode(), { ...of, entry: { ...of.entry, uncompressedSize: 2 ** 20 } }, headerOf(builder, features))
    }
    expect(build({})).not.toThrow()
    expect(build({})().batch(0)).toEqual({ compressedSize: 10, uncompressedSize: 100 })
    for (const bad of [{ batchOffset: 51 }, { compressedSize: 11 }, { compressedSize: 0 }, { compressedSize: 101 }, { uncompressedSize: 2 ** 25 }, { close: false }]) {
      expect(build(bad), JSON.stringify(bad)).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
    }
  })

  it('refuses every truncation and survives changed bytes', () => {
    const { builder, owner } = small({ isV2: true })
    const bytes = builder.encode()
    for (let n = 0; n < bytes.length; n++) expect(() => ChunkInfoArray.decode(bytes.subarray(0, n), owner(builder), headerOf(builder))).toThrow(expect.objectContaining({ code: 'FORMAT_TRUNCATED' }))
    const random = randomOf(3)
    for (let round = 0; round < 2000; round++) {
      const damaged = Uint8Array.from(bytes)
      damaged[below(random, damaged.length)] = below(random, 256)
      survives(() => ChunkInfoArray.decode(damaged, owner(builder), headerOf(builder)), `round ${round}`)
    }
  })

  it('survives headers that lie about contexts', () => {
    const [record] = openCase('v6-batch-1m').blobs
    const { bytes, headerBytes } = storedInfo(record!)
    const header = blobMetaHeader.decode(headerBytes)
    for (const lie of [{ contextOffset: 2 ** 50 }, { contextCount: 2 ** 32 - 1 }, { contextOffset: 0 }, { contextCount: header.contextCount + 1 }]) {
      expect(() => ChunkInfoArray.decode(bytes, record!, { ...header, ...lie }), JSON.stringify(lie)).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
    }
  })
})

describe('ChunkInfoBuilder', () => {
  it('refuses what the format cannot express', () => {
    const chunk = { compressedOffset: 0, compressedSize: 10, uncompressedOffset: 0, uncompressedSize: 10, isCompressed: false }
    for (const isV2 of [false, true]) {
      const builder = new ChunkInfoBuilder({ isV2 })
      for (const bad of [{ uncompressedOffset: 1 }, { compressedOffset: 2 ** 40 }, { uncompressedSize: 2 ** 24 + 1, compressedSize: 2 ** 24 + 1 }, { compressedSize: 9 }, { compressedSize: 0, uncompressedSize: 0 }]) {
        expect(() => builder.add({ ...chunk, ...bad }), JSON.stringify(bad)).toThrow(expect.objectContaining({ code: 'FORMAT_OUT_OF_RANGE' }))
      }
      expect(builder.count).toBe(0)
    }
    expect(() => new ChunkInfoBuilder({ isV2: false }).addMember({ compressedOffset: 0, uncompressedOffset: 0, uncompressedSize: 1, batchOffset: 0 })).toThrow(/no batches/)
    expect(() => new ChunkInfoBuilder({ isV2: false }).add({ ...chunk, isCompressed: true })).toThrow(/unchanged size/)
  })
})

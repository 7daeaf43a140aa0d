import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { below, randomOf, readHostile } from '../../test/support/hostile.ts'
import type { Row, Struct } from '../core/struct.ts'
import { blobMetaHeader } from './blob/chunk-info.ts'
import { chunkIndex, dirent, extendedInode } from './erofs/inode.ts'
import { blobEntry } from './rafs-v6/blob-table.ts'
import { STRUCT_PAGES } from './struct-tables.ts'

const all = Object.values(STRUCT_PAGES).flat()

/** Random bytes whose fields are in range: what a writer could have written. */
function plausible(one: Struct<readonly Row[]>, random: () => number): Uint8Array {
  const noise = Buffer.from(Array.from({ length: one.size }, () => below(random, 256)))
  for (const [at, , { label, size }] of one.rows) {
    if (label.startsWith('le32 = ')) noise.writeUInt32LE(Number(label.slice('le32 = '.length)), at)
    else if (label.includes('2^53')) noise.writeBigUInt64LE(BigInt(below(random, 2 ** 53)), at)
    else if (label.startsWith('char')) noise.write('n'.repeat(below(random, size)).padEnd(size, '\0'), at, 'latin1')
    else if (label.startsWith('octal')) noise.write(`${below(random, 8 ** 9).toString(8).padStart(size - 1, '0')}\0`, at, 'latin1')
  }
  return noise
}

describe('structures at rest', () => {
  it('are all listed', () => {
    const defined = ['blob', 'erofs', 'gpt', 'rafs-v6'].flatMap((folder) => readdirSync(path.join(import.meta.dirname, folder)).filter((file) => !file.endsWith('.test.ts'))
      .flatMap((file) => [...readFileSync(path.join(import.meta.dirname, folder, file), 'utf8').matchAll(/= struct\('(\w+)'/g)].map((match) => match[1]!)))
    expect(all.map(({ name }) => name).sort()).toEqual(defined.sort())
  })

  it.each(all.map((one) => [one.name, one] as const))('%s keeps what it encodes, and refuses every truncation', (_name, one) => {
    const random = randomOf(one.size)
    for (let round = 0; round < 200; round++) {
      const noise = plausible(one, random)
      const encoded = one.encode(one.decode(noise))
      expect(one.decode(encoded)).toEqual(one.decode(noise))
    }
    expect(readHostile((bytes) => one.decode(bytes), new Uint8Array(one.size))).toEqual({ acceptedPrefixes: 0 })
  })
})

// Oracles packed by hand with Buffer, from the specification alone.
describe('hand-packed structures', () => {
  it('are decoded: extended inode', () => {
    const raw = Buffer.alloc(64)
    raw.writeUInt16LE(0b1001, 0)
    raw.writeUInt16LE(5, 2)
    raw.writeUInt16LE(0o100644, 4)
    raw.writeBigUInt64LE(0x1_0000_0002n, 8)
    raw.writeUInt32LE(0x2c, 16)
    raw.writeUInt32LE(9, 20)
    raw.writeUInt32LE(1000, 24)
    raw.writeUInt32LE(4_000_000_000, 28)
    raw.writeBigInt64LE(-2n, 32)
    raw.writeUInt32LE(999_999_999, 40)
    raw.writeUInt32LE(2, 44)
    expect(extendedInode.decode(raw)).toEqual({ format: 9, xattrCount: 5, mode: 0o100644, size: 0x1_0000_0002, union: 0x2c, ino: 9, uid: 1000, gid: 4_000_000_000, mtime: -2, mtimeNsec: 999_999_999, nlink: 2, layerMark: 0 })
  })

  it('are decoded: directory entry and chunk index', () => {
    const entry = Buffer.alloc(12)
    entry.writeBigUInt64LE(0x123456789n, 0)
    entry.writeUInt16LE(24, 8)
    entry[10] = 7
    expect(dirent.decode(entry)).toEqual({ nid: 0x123456789n, nameOffset: 24, fileType: 7 })
    // blob 2, chunk 0x56789a, block 0x1000: low half | (high byte << 8 | blob + 1) | block
    const address = Buffer.alloc(8)
    address.writeUInt16LE(0x789a, 0)
    address.writeUInt16LE((0x56 << 8) | 3, 2)
    address.writeUInt32LE(0x1000, 4)
    expect(chunkIndex.decode(address)).toEqual({ indexLow: 0x789a, device: 3, indexHigh: 0x56, block: 0x1000 })
  })

  it('are decoded: blob record and header of chunk information', () => {
    const blob = Buffer.alloc(256)
    blob.write('ab', 0)
    for (const [i, at] of [64, 68, 72, 76, 80, 84].entries()) blob.writeUInt32LE(i + 1, at)
    for (const [i, at] of [88, 96, 112, 120, 128].entries()) blob.writeBigUInt64LE(BigInt(2 ** 40 + i), at)
    blob.writeUInt32LE(640, 104)
    blob.writeUInt32LE(3, 108)
    blob.fill(0xaa, 136, 168)
    expect(blobEntry.decode(blob)).toMatchObject({
      blobId: 'ab', blobIndex: 1, chunkSize: 2, chunkCount: 3, compressor: 4, digester: 5, features: 6, compressedSize: 2 ** 40, uncompressedSize: 2 ** 40 + 1, tocSize: 640,
      ciCompressor: 3, ciOffset: 2 ** 40 + 2, ciCompressedSize: 2 ** 40 + 3, ciUncompressedSize: 2 ** 40 + 4, tocDigest: new Uint8Array(32).fill(0xaa), cipher: 0,
    })
    const header = Buffer.alloc(4096)
    for (const at of [0, 4092]) header.writeUInt32LE(0xb10bb10b, at)
    for (const [i, at] of [4, 8, 12].entries()) header.writeUInt32LE(i + 1, at)
    for (const [i, at] of [16, 24, 32, 40, 48].entries()) header.writeBigUInt64LE(BigInt(i + 10), at)
    header.writeUInt32LE(15, 56)
    expect(blobMetaHeader.decode(header)).toMatchObject({ features: 1, ciCompressor: 2, ciEntries: 3, ciOffset: 10, ciCompressedSize: 11, ciUncompressedSize: 12, contextOffset: 13, contextSize: 14, contextCount: 15 })
  })
})

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { crc32c, digestOf } from './codecs.ts'
import { native } from './load.ts'

const noise = randomBytes(100_000)
const text = Buffer.alloc(100_000, 'a chunk that compresses well. ')
// Three slices, one of them empty.
const slices = Uint32Array.of(0, 40_000, 40_000, 0, 40_001, 59_999)

describe('hashSlices', () => {
  it.each([0, 1] as const)('digester %i: gives each slice its digest and checksum', async (digester) => {
    const digests = new Uint8Array(96)
    const crcs = new Uint32Array(3)
    await native().hashSlices(noise, slices, digester, digests, crcs)
    const alone = new Uint8Array(digests.length)
    await native().hashSlices(noise, slices, digester, alone, new Uint32Array(0)) // no checksums
    expect(alone).toEqual(digests)
    for (let i = 0; i < 3; i++) {
      const bytes = noise.subarray(slices[2 * i], slices[2 * i]! + slices[2 * i + 1]!)
      expect(Buffer.compare(digests.subarray(32 * i, 32 * i + 32), digestOf(bytes, digester))).toBe(0)
      expect(crcs[i]).toBe(crc32c(bytes))
    }
  })

  it('refuses a slice that leaves the buffer, and outputs that are too short, before anything is read', () => {
    const out = new Uint8Array(32)
    const crcs = new Uint32Array(1)
    for (const bad of [Uint32Array.of(0, 100_001), Uint32Array.of(100_000, 1), Uint32Array.of(0xffff_ffff, 0xffff_ffff)]) {
      expect(() => native().hashSlices(noise, bad, 0, out, crcs)).toThrow(TypeError)
    }
    expect(() => native().hashSlices(noise, Uint32Array.of(0, 1), 0, new Uint8Array(31), crcs)).toThrow(/argument 4/)
    expect(() => native().hashSlices(noise, Uint32Array.of(0, 1, 1, 1), 0, new Uint8Array(64), crcs)).toThrow(/argument 5/)
  })
})

describe('compressSlices and decodeSlices', () => {
  it.each([0, 1, 3] as const)('compressor %i: every slice comes back, stored raw where it did not shrink', async (compressor) => {
    const buffer = Buffer.concat([text.subarray(0, 50_000), noise.subarray(0, 50_000)])
    const pairs = Uint32Array.of(0, 50_000, 50_000, 50_000, 7, 1, 9, 0)
    const out = Buffer.alloc(100_001)
    const sizes = new Uint32Array(4)
    const used = await native().compressSlices(buffer, pairs, compressor, 3, out, sizes)
    expect(used).toBe(sizes.reduce((sum, size) => sum + size, 0))
    if (compressor !== 0) expect(sizes[0]).toBeLessThan(5000)
    expect([...sizes.subarray(1)]).toEqual([50_000, 1, 0])

    let at = 0
    const stored = Uint32Array.from([...sizes].flatMap((size) => { at += size; return [at - size, size] }))
    const how = Uint8Array.of(compressor, 0, 0, 0)
    const back = Buffer.alloc(100_001)
    const results = new Uint8Array(4).fill(9)
    const targets = Uint32Array.of(0, 50_000, 50_000, 50_000, 100_000, 1, 0, 0)
    const digests = new Uint8Array(128)
    await native().hashSlices(buffer, pairs, 0, digests, new Uint32Array(4))
    expect(await native().decodeSlices(out, stored, how, back, targets, 0, digests, results)).toBe(0)
    expect([...results]).toEqual([0, 0, 0, 0])
    expect(back.subarray(0, 100_000).equals(buffer)).toBe(true)
  })

  it('says which slice does not decode and which has another digest', async () => {
    const packed = gzipSync(text.subarray(0, 1000))
    const buffer = Buffer.concat([packed, packed, noise.subarray(0, 50)])
    const pairs = Uint32Array.of(0, packed.length, packed.length, packed.length - 1, 2 * packed.length, 50)
    const results = new Uint8Array(3)
    const digests = Buffer.concat([digestOf(text.subarray(0, 1000), 1), Buffer.alloc(32), Buffer.alloc(32)])
    const count = await native().decodeSlices(buffer, pairs, Uint8Array.of(2, 2, 0), new Uint8Array(2050), Uint32Array.of(0, 1000, 1000, 1000, 2000, 50), 1, digests, results)
    expect(count).toBe(2)
    expect([...results]).toEqual([0, 1, 2])
  })

  it('checks no digest when there are none', async () => {
    const results = new Uint8Array(1)
    expect(await native().decodeSlices(noise, Uint32Array.of(0, 9), Uint8Array.of(0), new Uint8Array(9), Uint32Array.of(0, 9), 0, null, results)).toBe(0)
  })

  it('knows no compressor 7, and none that writes gzip', async () => {
    const results = new Uint8Array(1)
    expect(await native().decodeSlices(noise, Uint32Array.of(0, 9), Uint8Array.of(7), new Uint8Array(9), Uint32Array.of(0, 9), 0, null, results)).toBe(1)
    expect(() => native().compressSlices(noise, slices, 2, 0, new Uint8Array(100_000), new Uint32Array(3))).toThrow(/argument 3/)
  })
})

describe('decodeChunks', () => {
  const packed = gzipSync(text.subarray(0, 3000))
  const stored = Buffer.concat([packed, noise.subarray(0, 100), packed.subarray(0, 20)])
  // a batch of two chunks behind the others, a chunk that is stored as it is, one that does not decode
  const units = Uint32Array.of(0, packed.length, 16, 3000, 2, packed.length, 100, 8, 100, 0, packed.length + 100, 20, 3016, 10, 2)
  const chunks = Uint32Array.of(0, 16 + 2000, 0, 5, 0, 16, 3100, 3, 1, 8, 8, 100, 2, 3016, 3016, 10)

  it('decodes units, puts their chunks to their places, clears what follows, and hashes', async () => {
    const out = Buffer.alloc(3110, '.')
    const order = Uint32Array.of(...chunks.subarray(0, 8), ...chunks.subarray(12)) // not the one that overwrites the batch
    const digests = new Uint8Array(3 * 32)
    const crcs = new Uint32Array(3)
    const results = new Uint8Array(3).fill(9)
    await native().decodeChunks(stored, units, out, order, 8, 0, digests, crcs, results)
    expect([...results]).toEqual([0, 0, 1])
    expect(out.subarray(0, 8)).toEqual(Buffer.concat([text.subarray(2000, 2005), Buffer.alloc(3)]))
    expect(out.subarray(3100, 3104)).toEqual(Buffer.concat([text.subarray(0, 3), Buffer.alloc(1)]))
    expect(out.subarray(3104, 3110).toString()).toBe('......')
    expect(Buffer.from(digests.subarray(0, 32))).toEqual(digestOf(text.subarray(2000, 2005), 0))
    expect(Buffer.from(digests.subarray(32, 64))).toEqual(digestOf(text.subarray(0, 3), 0))
    expect([...crcs]).toEqual([native().crc32c(text.subarray(2000, 2005)), native().crc32c(text.subarray(0, 3)), 0])
  })

  it('hashes nothing that nobody asks for, and stays within its buffers', async () => {
    const results = new Uint8Array(1)
    const one = chunks.subarray(8, 12)
    const out = Buffer.alloc(108, '.')
    const only = Uint32Array.of(packed.length, 100, 8, 100, 0)
    await native().decodeChunks(stored, only, out, Uint32Array.of(0, 8, 8, 100), 4096, 1, null, new Uint32Array(0), results)
    expect(out.subarray(8)).toEqual(Buffer.from(noise.subarray(0, 100)))
    const call = (rows: Uint32Array, places: Uint32Array, alignment = 1, digests: Uint8Array | null = null) => () => native().decodeChunks(stored, rows, out, places, alignment, 0, digests, new Uint32Array(0), results)
    expect(call(Uint32Array.of(0, 1, 100, 9, 0), new Uint32Array(0))).toThrow(/argument 2/)
    expect(call(Uint32Array.of(stored.length, 1, 0, 1, 0), new Uint32Array(0))).toThrow(/argument 2/)
    expect(call(only, one)).toThrow(/argument 4/) // there is no unit 1
    expect(call(only, Uint32Array.of(0, 8, 9, 100))).toThrow(/argument 4/)
    expect(call(only, Uint32Array.of(0, 9, 8, 100))).toThrow(/argument 4/)
    expect(call(only, Uint32Array.of(0, 8, 8, 100), 0)).toThrow(/argument 5/)
    expect(call(only, Uint32Array.of(0, 8, 8, 100), 1, new Uint8Array(31))).toThrow(/argument 7/)
    expect(call(only, Uint32Array.of(0, 8, 8, 100, 0, 8, 8, 100))).toThrow(/argument 9/)
  })
})

describe('readFiles', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-bulk-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))

  it('reads parts of many files, short at the end of one, and gives an errno for what cannot be opened', async () => {
    const file = path.join(directory, 'file')
    writeFileSync(file, noise)
    symlinkSync(file, path.join(directory, 'link'))
    const names = ['file', 'file', 'missing', 'link', 'file']
    const paths = Buffer.from(names.map((name) => `${path.join(directory, name)}\0`).join(''))
    const buffer = new Uint8Array(3000)
    const results = new Int32Array(5)
    await native().readFiles(paths, Float64Array.of(0, 1000, 0, 99_500, 1000, 1000, 0, 1, 0, 0, 1, 0, 200_000, 5, 0), buffer, results)
    expect([...results]).toEqual([1000, 500, -2, -40, 0]) // ENOENT, ELOOP
    expect(Buffer.compare(buffer.subarray(0, 1000), noise.subarray(0, 1000))).toBe(0)
    expect(Buffer.compare(buffer.subarray(1000, 1500), noise.subarray(99_500))).toBe(0)
    expect(buffer.subarray(1500).every((byte) => byte === 0)).toBe(true)
  })

  it('refuses ranges outside the buffer and paths without a NUL at the end', () => {
    const paths = Buffer.from('/x\0')
    for (const range of [[0, 11, 0], [0, 1, 10], [-1, 1, 0], [0, -1, 0], [0, 1, -1], [Number.NaN, 1, 0], [0, Number.NaN, 0], [0, 1, Number.NaN]]) {
      expect(() => native().readFiles(paths, Float64Array.from(range), new Uint8Array(10), new Int32Array(1))).toThrow(/argument 2/)
    }
    expect(() => native().readFiles(Buffer.from('/x'), Float64Array.of(0, 0, 0), new Uint8Array(1), new Int32Array(1))).toThrow(/argument 1/)
  })
})

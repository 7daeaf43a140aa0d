import { createHash, randomBytes } from 'node:crypto'
import { deflateSync, gzipSync } from 'node:zlib'
import { blake3 } from '@napi-rs/blake-hash'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compress, crc32c, decompress, decompressInto, digestOf } from './codecs.ts'
import { native } from './load.ts'

// Compressible, but not trivially.
function sampleText(length: number): Buffer {
  const words = randomBytes(64)
  return Buffer.from(Array.from({ length }, (_, i) => words[(i * i) % 61 & 63]!))
}

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const noise = randomBytes(3_000_000)

describe('digests', () => {
  it('blake3 and sha256 agree with other implementations on every length up to 5000', () => {
    for (let length = 0; length <= 5000; length++) {
      const bytes = noise.subarray(length % 13, (length % 13) + length)
      if (!digestOf(bytes, 0).equals(blake3(bytes))) expect.fail(`blake3 of ${length} bytes`)
      if (!digestOf(bytes, 1).equals(sha256(bytes))) expect.fail(`sha256 of ${length} bytes`)
    }
  })

  it('blake3 agrees around every power of two of chunks, where its tree changes shape', () => {
    for (let chunks = 4; chunks <= 2048; chunks *= 2) {
      for (const length of [-1025, -1024, -1, 0, 1, 1024, 1025].map((delta) => chunks * 1024 + delta)) {
        expect(digestOf(noise.subarray(0, length), 0).toString('hex')).toBe(blake3(noise.subarray(0, length)).toString('hex'))
      }
    }
  })

  it('agree on random slices of a large buffer', () => {
    fc.assert(fc.property(fc.nat(noise.length), fc.nat(noise.length), (a, b) => {
      const bytes = noise.subarray(Math.min(a, b), Math.max(a, b))
      return digestOf(bytes, 0).equals(blake3(bytes)) && digestOf(bytes, 1).equals(sha256(bytes))
    }), { numRuns: 60 })
  })

  it('refuse an output without 32 bytes at the offset', () => {
    for (const offset of [-1, 1, 2 ** 40, Number.NaN + 1]) {
      const run = () => native().blake3(noise, new Uint8Array(32), offset)
      if (Number.isNaN(offset)) expect(run).not.toThrow() // a number of no value is 0, as in every typed array call
      else expect(run).toThrow(RangeError)
    }
    expect(() => native().sha256(noise, new Uint8Array(31), 0)).toThrow(RangeError)
  })
})

describe('crc32c', () => {
  it('gives the check value of its definition', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe306_9283)
    expect(crc32c(new Uint8Array(0))).toBe(0)
  })

  it('agrees with the bit-by-bit definition', () => {
    const bitwise = (bytes: Uint8Array): number => {
      let crc = 0xffff_ffff
      for (const byte of bytes) {
        crc ^= byte
        for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1
      }
      return (crc ^ 0xffff_ffff) >>> 0
    }
    for (const length of [1, 7, 8, 9, 1023, 3071, 3072, 3073, 6144, 10_000]) {
      expect(crc32c(noise.subarray(3, 3 + length))).toBe(bitwise(noise.subarray(3, 3 + length)))
    }
  })
})

describe('compress and decompress', () => {
  it.each([1, 3] as const)('compressor %i gives the bytes back', (compressor) => {
    for (const length of [2, 100, 4096, 65_536, 1 << 20]) {
      const text = Buffer.alloc(length, sampleText(Math.min(length, 4096)))
      const packed = compress(text, { compressor })
      if (length >= 4096) expect(packed).toBeDefined()
      if (packed !== undefined) expect(Buffer.compare(decompress(packed, { compressor, size: length }), text)).toBe(0)
    }
  })

  it('says undefined for what does not become strictly smaller', () => {
    for (const compressor of [0, 1, 3] as const) expect(compress(noise.subarray(0, 4096), { compressor })).toBeUndefined()
    for (const compressor of [0, 1, 3] as const) expect(compress(new Uint8Array(0), { compressor })).toBeUndefined()
  })

  it('zstd honours the level', () => {
    const text = Buffer.concat(Array.from({ length: 200 }, (_, i) => Buffer.from(`line ${i * 7919 % 1000} of a text ${i % 17}\n`)))
    const sizes = [1, 19].map((level) => compress(text, { compressor: 3, level })!.length)
    expect(sizes[1]).toBeLessThan(sizes[0]!)
  })

  it('gzip and zlib members are read, and only when nothing stands behind them', () => {
    const text = sampleText(5000)
    for (const packed of [gzipSync(text), deflateSync(text)]) {
      expect(Buffer.compare(decompress(packed, { compressor: 2, size: 5000 }), text)).toBe(0)
      expect(decompressInto(Buffer.concat([packed, Buffer.of(0)]), Buffer.alloc(5000), 2)).toBe(-1)
    }
  })

  it.each([0, 1, 2, 3] as const)('compressor %i: another size than announced is CODEC_CORRUPT', (compressor) => {
    const text = Buffer.alloc(3000, sampleText(1000))
    const packed = compressor === 2 ? gzipSync(text) : compress(text, { compressor }) ?? text
    for (const size of [2999, 3001]) {
      expect(() => decompress(packed, { compressor, size })).toThrow(expect.objectContaining({ code: 'CODEC_CORRUPT' }))
    }
  })

  it.each([1, 2, 3] as const)('compressor %i: damaged input never writes outside, crashes or hangs', (compressor) => {
    const text = Buffer.alloc(3000, sampleText(1000))
    const packed = compressor === 2 ? gzipSync(text) : compress(text, { compressor })!
    const guarded = Buffer.alloc(3000 + 64, 0xa5)
    fc.assert(fc.property(fc.nat(packed.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(packed.length), (at, flip, end) => {
      const damaged = Buffer.from(packed)
      damaged[at]! ^= flip
      guarded.fill(0xa5)
      const got = decompressInto(damaged.subarray(0, end), guarded.subarray(32, 3032), compressor)
      return got >= -1 && got <= 3000 && guarded.subarray(0, 32).every((b) => b === 0xa5) && guarded.subarray(3032).every((b) => b === 0xa5)
    }), { numRuns: 500 })
  })

  it('a codec works again after an error', () => {
    const text = Buffer.alloc(3000, sampleText(1000))
    const packed = compress(text, { compressor: 3 })!
    expect(decompressInto(packed.subarray(0, 20), Buffer.alloc(3000), 3)).toBe(-1)
    expect(Buffer.compare(decompress(packed, { compressor: 3, size: 3000 }), text)).toBe(0)
  })
})

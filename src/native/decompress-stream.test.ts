import { createHash, randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compress } from './codecs.ts'
import { decompressStream } from './decompress-stream.ts'
import { native } from './load.ts'

const signal = new AbortController().signal
const text = Buffer.concat(Array.from({ length: 3000 }, (_, i) => Buffer.from(`line ${i} ${randomBytes(4).toString('hex')}\n`)))

const zstd = (bytes: Uint8Array): Uint8Array => compress(bytes, { compressor: 3 })!
const pack = { gzip: (bytes: Uint8Array): Uint8Array => gzipSync(bytes), zstd }
const kinds = ['gzip', 'zstd'] as const

/** `bytes` in pieces of `size`, as a network would give them. */
async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function read(bytes: Uint8Array, kind: 'gzip' | 'zstd', { size = 1000, ...options }: { size?: number; highWater?: number; windowLogMax?: number } = {}): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const piece of decompressStream(pieces(bytes, size), kind, { signal, ...options })) all.push(piece)
  return Buffer.concat(all)
}

describe.each(kinds)('decompressStream of %s', (kind) => {
  it('gives the bytes back whatever the sizes of input and output', async () => {
    for (const bytes of [text, text.subarray(0, 500)]) {
      const packed = pack[kind](bytes)
      for (const size of [bytes.length / 500, packed.length]) {
        for (const highWater of [bytes.length / 500, 1000, bytes.length, 1 << 20].map(Math.ceil)) {
          expect((await read(packed, kind, { size: Math.ceil(size), highWater })).equals(bytes), `input ${size}, output ${highWater}`).toBe(true)
        }
      }
    }
  })

  it('reads on after the end of a member', async () => {
    const packed = Buffer.concat([pack[kind](text), pack[kind](text.subarray(0, 5000)), pack[kind](text)])
    for (const size of [97, 1 << 20]) expect((await read(packed, kind, { size })).length).toBe(2 * text.length + 5000)
  })

  it('keeps each piece intact when later ones are read', async () => {
    const kept: Uint8Array[] = []
    for await (const piece of decompressStream(pieces(pack[kind](text), 999), kind, { signal, highWater: 4096 })) {
      expect(piece.length).toBeGreaterThan(0)
      expect(piece.length).toBeLessThanOrEqual(4096)
      kept.push(piece)
    }
    expect(Buffer.concat(kept).equals(text)).toBe(true)
  })

  it('says that every shorter stream is truncated', async () => {
    const packed = pack[kind](text.subarray(0, 2000))
    for (let end = 0; end < packed.length; end += end < 40 || end > packed.length - 40 ? 1 : 37) {
      await expect(read(packed.subarray(0, end), kind)).rejects.toMatchObject({ code: 'CODEC_CORRUPT', message: expect.stringContaining('truncated') })
    }
  })

  it('says that garbage is corrupt, at the start and behind a member', async () => {
    for (const bytes of [Buffer.alloc(100, 0x55), Buffer.concat([pack[kind](text), Buffer.from('garbage!')])]) {
      await expect(read(bytes, kind)).rejects.toMatchObject({ code: 'CODEC_CORRUPT', message: expect.stringContaining('corrupt') })
    }
  })

  it('never gives more than the pieces before the damage', async () => {
    const packed = pack[kind](text)
    await fc.assert(fc.asyncProperty(fc.nat(packed.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const damaged = Buffer.from(packed)
      damaged[at]! ^= flip
      const result = await read(damaged, kind, { size: 5000 }).catch((error: unknown) => error)
      // gzip's header has bytes of no consequence (time, system), and its checksum finds the rest.
      if (Buffer.isBuffer(result)) return kind === 'zstd' || result.equals(text)
      return result instanceof Error && 'code' in result && result.code === 'CODEC_CORRUPT'
    }), { numRuns: 100 })
  })

  it('ends the source when the reader leaves early, or the stream is corrupt', async () => {
    for (const bytes of [pack[kind](text), Buffer.alloc(5000, 0x55)]) {
      let ended = 0
      const source = async function* () { try { for (;;) yield bytes } finally { ended++ } }
      try {
        for await (const piece of decompressStream(source(), kind, { signal, highWater: 1000 })) if (piece.length > 0) break
      } catch (error) {
        expect(error).toMatchObject({ code: 'CODEC_CORRUPT' })
      }
      await new Promise((resolve) => setImmediate(resolve))
      expect(ended).toBe(1)
    }
  })

  it('stops at an abort, even while the source gives nothing', async () => {
    const controller = new AbortController()
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<IteratorResult<Uint8Array>>(() => {}) }) }
    const reading = (async () => { for await (const _ of decompressStream(silent, kind, { signal: controller.signal })) { /* nothing comes */ } })()
    controller.abort(new Error('enough'))
    await expect(reading).rejects.toThrow('enough')
  })

  it('passes on what the source throws', async () => {
    const failing = async function* () { yield pack[kind](text).subarray(0, 100); throw new Error('connection lost') }
    await expect((async () => { for await (const _ of decompressStream(failing(), kind, { signal })) { /* read on */ } })()).rejects.toThrow('connection lost')
  })
})

describe('gzip', () => {
  it('ignores zero padding at the end, but nothing else', async () => {
    const padded = Buffer.concat([gzipSync(text), Buffer.alloc(5000)])
    expect((await read(padded, 'gzip', { size: 511 })).equals(text)).toBe(true)
    await expect(read(Buffer.concat([padded, Buffer.of(1)]), 'gzip')).rejects.toMatchObject({ code: 'CODEC_CORRUPT' })
    await expect(read(Buffer.alloc(100), 'gzip')).rejects.toMatchObject({ code: 'CODEC_CORRUPT' })
  })
})

describe('zstd', () => {
  it('skips skippable frames', async () => {
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
    const packed = Buffer.concat([skippable, zstd(text), skippable])
    for (const size of [61, 1000]) expect((await read(packed, 'zstd', { size })).equals(text)).toBe(true)
  })

  it('refuses a window of more than 128 MiB unless it is asked for', async () => {
    // Magic, frame header descriptor 0, window descriptor: exponent 18 = 2^28 bytes; then one last raw block of 1 byte.
    const large = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0x09, 0x00, 0x00, 0x41])
    await expect(read(large, 'zstd')).rejects.toMatchObject({ code: 'CODEC_CORRUPT', message: expect.stringContaining('memory') })
    expect((await read(large, 'zstd', { windowLogMax: 28 })).toString()).toBe('A')
  })
})

describe('decoder', () => {
  it('refuses a second step while one runs, and any step after close', async () => {
    const decoder = native().streamOpen(2)
    const input = gzipSync(text)
    const running = native().streamStep(decoder, input, new Uint8Array(1000), new Int32Array(3))
    expect(() => native().streamStep(decoder, input, new Uint8Array(1000), new Int32Array(3))).toThrow(/has not ended/)
    native().streamClose(decoder) // while the step runs
    await running
    expect(() => native().streamStep(decoder, input, new Uint8Array(1000), new Int32Array(3))).toThrow(/open decoder/)
    expect(() => native().streamClose(decoder)).toThrow(TypeError)
  })

  // With buffers of its own for each piece it is V8 that says when their memory is free.
  it('holds a large stream in little memory', async () => {
    const whole = Buffer.alloc(64 << 20, text)
    const packed = gzipSync(whole, { level: 1 })
    const hash = createHash('sha1')
    const before = process.memoryUsage().arrayBuffers
    let most = 0
    for await (const piece of decompressStream(pieces(packed, 65_536), 'gzip', { signal, reuseBuffers: true })) {
      hash.update(piece)
      most = Math.max(most, process.memoryUsage().arrayBuffers - before)
    }
    expect(hash.digest('hex')).toBe(createHash('sha1').update(whole).digest('hex'))
    expect(most).toBeLessThan(8 << 20)
  })
})

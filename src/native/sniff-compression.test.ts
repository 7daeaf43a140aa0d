import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { COMPRESSOR, compress } from './codecs.ts'
import { decompressAs, sniffCompression } from './sniff-compression.ts'

const text = Buffer.from('layers are told by their bytes '.repeat(100))
const zstd = Buffer.from(compress(text, { compressor: COMPRESSOR.zstd })!)
const skippable = Buffer.concat([Buffer.from([0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9]), zstd])

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const piece of stream) all.push(Uint8Array.from(piece))
  return Buffer.concat(all)
}

describe('sniffCompression', () => {
  it.each([
    ['gzip', gzipSync(text)], ['zstd', zstd], ['zstd', skippable], ['none', text], ['none', Buffer.alloc(0)], ['none', Buffer.from([0x28, 0xb5])], ['gzip', Buffer.from([0x1f, 0x8b])],
  ] as const)('tells %s, however the stream is cut, and gives every byte back', async (compression, bytes) => {
    for (const size of [1, 3, 1000]) {
      const sniffed = await sniffCompression(pieces(bytes, size))
      expect(sniffed.compression).toBe(compression)
      expect(await collect(sniffed.stream)).toEqual(bytes)
    }
  })

  it('ends the source when the reader leaves', async () => {
    let ended = false
    async function* source() { try { yield text; yield text } finally { ended = true } }
    const { stream } = await sniffCompression(source())
    for await (const _ of stream) break
    expect(ended).toBe(true)
  })

  it('is undone by decompressAs', async () => {
    for (const bytes of [gzipSync(text), zstd, skippable, text]) {
      const { compression, stream } = await sniffCompression(pieces(bytes, 7))
      expect(await collect(decompressAs(compression, stream, { signal: new AbortController().signal }))).toEqual(text)
    }
  })
})

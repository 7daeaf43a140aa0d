// How a stream is compressed, told by its first bytes: media types and file names are often wrong.
// SPEC: RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2 (skippable frames come first in what pzstd writes).

import { type DecompressOptions, decompressStream } from './decompress-stream.ts'

export type StreamCompression = 'none' | 'gzip' | 'zstd'

/** Bytes that tell them apart. */
const MAGIC_SIZE = 4

/** Reads as much of `source` as it takes to tell, and gives all of it back as `stream`. A stream that is too short for a magic is `none`. */
export async function sniffCompression(source: AsyncIterable<Uint8Array>): Promise<{ readonly compression: StreamCompression; readonly stream: AsyncIterable<Uint8Array> }> {
  const rest = source[Symbol.asyncIterator]()
  let head = Buffer.alloc(0)
  while (head.length < MAGIC_SIZE) {
    const { value, done } = await rest.next()
    if (done === true) break
    head = Buffer.concat([head, value])
  }
  return { compression: compressionOf(head), stream: rejoined(head, rest) }
}

/** The bytes of `stream`, decompressed if they are compressed. See `decompressStream`. */
export function decompressAs(compression: StreamCompression, stream: AsyncIterable<Uint8Array>, options: DecompressOptions): AsyncIterable<Uint8Array> {
  return compression === 'none' ? stream : decompressStream(stream, compression, options)
}

function compressionOf(head: Uint8Array): StreamCompression {
  const [a, b, c, d] = head
  if (a === 0x1f && b === 0x8b) return 'gzip'
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return 'zstd'
  if (a !== undefined && a >> 4 === 5 && b === 0x2a && c === 0x4d && d === 0x18) return 'zstd'
  return 'none'
}

async function* rejoined(head: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    if (head.length > 0) yield head
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value
  } finally {
    await rest.return?.()
  }
}

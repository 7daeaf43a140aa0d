// gzip on all cores: one member, made of parts that are compressed side by side. The bytes depend on the input alone, not on the threads.
// SPEC: RFC 1951 3.2 (blocks end on a byte after an empty stored one), RFC 1952.

import { MiB } from '../core/units.ts'
import { native } from './load.ts'

/** LIMIT: of a part. Each begins with an empty Huffman table; at this size that costs less than 0.1 %. Changing it changes the bytes. */
const PART_SIZE = MiB
/** LIMIT: parts in work, with a buffer each; libuv's pool has no more threads. */
const MAX_PARALLEL = 4
/** What deflate may need beyond its input: stored blocks, the end of a part. More than zlib's own bound. */
const MARGIN = 4096
/** SPEC: RFC 1952 2.3: magic, deflate, no flags, no time, no hints, Unix. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])
const TRAILER_SIZE = 8

interface Part { readonly piece: Uint8Array; readonly offset: number; readonly length: number }

/** `pieces`, back to back, as one gzip member. `level` is zlib's, 1 to 9. */
export async function gzipPieces(pieces: readonly Uint8Array[], { level, signal }: { level: number; signal: AbortSignal }): Promise<Uint8Array> {
  const parts = pieces.flatMap(partsOf)
  if (parts.length === 0) parts.push({ piece: new Uint8Array(0), offset: 0, length: 0 })
  const packed: Buffer[] = new Array<Buffer>(parts.length)
  const checksums = new Uint32Array(parts.length)
  let next = 0
  const work = async (): Promise<void> => {
    const out = Buffer.allocUnsafeSlow(PART_SIZE + PART_SIZE / 1024 + MARGIN)
    const result = new Uint32Array(2)
    for (let at = next++; at < parts.length; at = next++) {
      signal.throwIfAborted()
      const { piece, offset, length } = parts[at]!
      await native().deflatePart(piece, offset, length, level, at === parts.length - 1, out, result)
      packed[at] = Buffer.from(out.subarray(0, result[0]))
      checksums[at] = result[1]!
    }
  }
  await Promise.all(Array.from({ length: Math.min(MAX_PARALLEL, parts.length) }, work))
  const size = parts.reduce((sum, { length }) => sum + length, 0)
  const checksum = parts.reduce((sum, { length }, at) => native().crc32Combine(sum, checksums[at]!, length), 0)
  const trailer = Buffer.alloc(TRAILER_SIZE)
  trailer.writeUInt32LE(checksum, 0)
  trailer.writeUInt32LE(size % 2 ** 32, 4)
  return Buffer.concat([HEADER, ...packed, trailer])
}

function partsOf(piece: Uint8Array): Part[] {
  return Array.from({ length: Math.ceil(piece.length / PART_SIZE) }, (_, at) => (
    { piece, offset: at * PART_SIZE, length: Math.min(PART_SIZE, piece.length - at * PART_SIZE) }
  ))
}

// From the bytes of a range to verified chunks, off the main thread.

import type { BufferPool } from '../../core/buffer-pool.ts'
import { roundUp } from '../../core/units.ts'
import { CHUNK_ALIGNMENT, type ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import type { CompressorNumber } from '../../native/addon.ts'
import { COMPRESSOR, DIGESTER } from '../../native/codecs.ts'
import { native } from '../../native/load.ts'
import type { ChunkPlace, VerifiedRun } from '../cache/blob-cache.ts'
import type { Evidence, Slice } from './evidence.ts'
import type { Range } from './plan.ts'

const NO_CRCS = new Uint32Array(0)

export interface Decoding {
  readonly layout: ChunkInfoArray
  /** Of the blob. */
  readonly compressor: CompressorNumber
  /** Undefined when the configuration says, explicitly, that nothing is to be verified. */
  readonly evidence: Evidence | undefined
  /** Where the buffer of the result comes from. */
  readonly pool: BufferPool
}

/** Views of one buffer; give it back when nobody needs them any more. */
export interface Decoded {
  readonly buffer: Buffer
  /** Verified chunks, ascending: where they lie in the buffer. */
  readonly chunks: readonly Slice[]
  /** The same as they are written to a cache file. */
  readonly runs: readonly VerifiedRun[]
  /** Chunks that do not decode, or decode to something else. */
  readonly wrong: ReadonlySet<number>
}

/** SPEC: native decodeChunks. */
const UNIT_COLUMNS = 5
const CHUNK_COLUMNS = 4

/** What is decoded from where to where, for the native call, and the chunks' places in its output. */
interface Work {
  readonly units: Uint32Array
  readonly chunks: Uint32Array
  readonly slices: readonly Slice[]
  /** Bytes of output. */
  readonly size: number
}

/** Decodes all units of `range`, whose stored bytes are `stored`. */
export async function decodeRange(stored: Uint8Array, range: Range, { layout, compressor, evidence, pool }: Decoding): Promise<Decoded> {
  const { units, chunks, slices, size } = workOf(range, layout, compressor)
  const buffer = pool.take(size)
  const out = new Uint8Array(buffer.buffer, buffer.byteOffset, size)
  const hashes = evidence?.room(slices)
  const results = new Uint8Array(slices.length)
  await native().decodeChunks(stored, units, out, chunks, CHUNK_ALIGNMENT, evidence?.digester ?? DIGESTER.blake3, hashes?.digests ?? null, hashes?.crcs ?? NO_CRCS, results)
  const wrong = hashes === undefined ? new Set<number>() : evidence!.differing(slices, hashes)
  for (let i = 0; i < results.length; i++) if (results[i] !== 0) wrong.add(slices[i]!.index)
  const good = wrong.size === 0 ? slices : slices.filter(({ index }) => !wrong.has(index))
  return { buffer, chunks: good, runs: runsOf(out, good, layout), wrong }
}

// Chunks are laid out as in the cache file, 4096-aligned with zeros between, so that neighbours are written with one call; batches, whose
// members lie close, are decoded behind them and spread.
function workOf({ offset: from, units }: Range, layout: ChunkInfoArray, compressor: CompressorNumber): Work {
  const slices: Slice[] = []
  let end = 0
  for (const unit of units) {
    for (const index of unit.chunks) {
      const size = layout.uncompressedSize(index)
      slices.push({ index, offset: end, size })
      end = roundUp(end + size, CHUNK_ALIGNMENT)
    }
  }
  const rows = new Uint32Array(units.length * UNIT_COLUMNS)
  const chunks = new Uint32Array(slices.length * CHUNK_COLUMNS)
  let at = 0
  for (let i = 0; i < units.length; i++) {
    const { batch, offset, size, isCompressed, uncompressedSize, chunks: members } = units[i]!
    const to = batch < 0 ? slices[at]!.offset : end
    rows.set([offset - from, size, to, uncompressedSize, isCompressed ? compressor : COMPRESSOR.none], i * UNIT_COLUMNS)
    if (batch >= 0) end += uncompressedSize
    for (const index of members) {
      const slice = slices[at]!
      chunks.set([i, batch < 0 ? to : to + layout.batchOffset(index), slice.offset, slice.size], at++ * CHUNK_COLUMNS)
    }
  }
  return { units: rows, chunks, slices, size: end }
}

/** Joins chunks that are neighbours both in `out` and in the cache file. */
function runsOf(out: Uint8Array, slices: readonly Slice[], layout: ChunkInfoArray): VerifiedRun[] {
  const runs: VerifiedRun[] = []
  for (let i = 0; i < slices.length;) {
    const from = slices[i]!.offset
    const offset = layout.uncompressedOffset(slices[i]!.index)
    const chunks: ChunkPlace[] = []
    let to = from
    for (; i < slices.length; i++) {
      const { index, offset: at, size } = slices[i]!
      const place = layout.uncompressedOffset(index)
      if (place - offset !== at - from) break
      chunks.push({ index, offset: place, size })
      to = at + size
    }
    runs.push({ offset, bytes: out.subarray(from, to), chunks })
  }
  return runs
}

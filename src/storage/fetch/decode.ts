// From the bytes of a range to verified chunks, off the main thread.

import type { BufferPool } from '../../core/buffer-pool.ts'
import { roundUp } from '../../core/units.ts'
import { CHUNK_ALIGNMENT, type ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import type { CompressorNumber } from '../../native/addon.ts'
import { COMPRESSOR } from '../../native/codecs.ts'
import { native } from '../../native/load.ts'
import type { ChunkPlace, VerifiedRun } from '../cache/blob-cache.ts'
import type { Evidence, Slice } from './evidence.ts'
import type { Range, Unit } from './plan.ts'

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
  /** Verified chunks, ascending. */
  readonly chunks: ReadonlyMap<number, Uint8Array>
  /** The same as they are written to a cache file. */
  readonly runs: readonly VerifiedRun[]
  /** Chunks that do not decode, or decode to something else. */
  readonly wrong: ReadonlySet<number>
}

/** Decodes all units of `range`, whose stored bytes are `stored`. */
export async function decodeRange(stored: Uint8Array, range: Range, { layout, compressor, evidence, pool }: Decoding): Promise<Decoded> {
  // Chunks are laid out as in the cache file, 4096-aligned with zeros between, so that neighbours are written with one call; batches, whose
  // members lie close, are decoded behind them and spread.
  const slices: Slice[] = []
  let end = 0
  for (const index of range.units.flatMap(({ chunks }) => chunks)) {
    slices.push({ index, offset: end, size: layout.uncompressedSize(index) })
    end = roundUp(end + layout.uncompressedSize(index), CHUNK_ALIGNMENT)
  }
  const batchAt = range.units.map(({ batch, uncompressedSize }) => { const at = end; if (batch >= 0) end += uncompressedSize; return at })
  const buffer = pool.take(end)
  const out = buffer.subarray(0, end)
  for (const { offset, size } of slices) out.fill(0, offset + size, roundUp(offset + size, CHUNK_ALIGNMENT))
  const sliceOf = new Map(slices.map((slice) => [slice.index, slice]))
  const wrong = new Set<number>()
  const failed = await decodeUnits(stored, range, out, { compressor, place: (unit, i) => (unit.batch < 0 ? sliceOf.get(unit.chunks[0]!)!.offset : batchAt[i]!) })
  for (const [i, unit] of range.units.entries()) {
    for (const index of unit.chunks) {
      const { offset, size } = sliceOf.get(index)!
      const from = batchAt[i]! + (unit.batch < 0 ? 0 : layout.batchOffset(index))
      if (failed.has(unit)) wrong.add(index)
      else if (unit.batch >= 0) out.copy(out, offset, from, from + size)
    }
  }
  const decoded = slices.filter(({ index }) => !wrong.has(index))
  if (evidence !== undefined) for (const index of await evidence.refute(out, decoded)) wrong.add(index)
  const good = decoded.filter(({ index }) => !wrong.has(index))
  return { buffer, chunks: new Map(good.map(({ index, offset, size }) => [index, out.subarray(offset, offset + size)])), runs: runsOf(out, good, layout), wrong }
}

async function decodeUnits(stored: Uint8Array, { offset, units }: Range, out: Uint8Array, { compressor, place }:
  { compressor: CompressorNumber; place: (unit: Unit, i: number) => number }): Promise<Set<Unit>> {
  const results = new Uint8Array(units.length)
  await native().decodeSlices(
    stored, Uint32Array.from(units.flatMap((unit) => [unit.offset - offset, unit.size])),
    Uint8Array.from(units, ({ isCompressed }) => (isCompressed ? compressor : COMPRESSOR.none)),
    out, Uint32Array.from(units.flatMap((unit, i) => [place(unit, i), unit.uncompressedSize])), 0, null, results,
  )
  return new Set(units.filter((_, i) => results[i] !== 0))
}

/** Joins chunks that are neighbours both in `out` and in the cache file. */
function runsOf(out: Uint8Array, slices: readonly Slice[], layout: ChunkInfoArray): VerifiedRun[] {
  const runs: { from: number; to: number; readonly offset: number; readonly chunks: ChunkPlace[] }[] = []
  for (const { index, offset: from, size } of slices) {
    const place = { index, offset: layout.uncompressedOffset(index), size }
    const last = runs.at(-1)
    if (last !== undefined && place.offset - last.offset === from - last.from) {
      last.to = from + size
      last.chunks.push(place)
    } else {
      runs.push({ from, to: from + size, offset: place.offset, chunks: [place] })
    }
  }
  return runs.map(({ from, to, offset, chunks }) => ({ offset, bytes: out.subarray(from, to), chunks }))
}

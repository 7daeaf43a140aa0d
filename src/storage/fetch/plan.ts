// What to fetch for a set of chunks: pure decisions. Chunks are numbered in the order in which they are stored, so neighbours by number are
// neighbours in the blob.
//
//   chunk   what a file is made of          unit    what is decoded at once: one chunk, or a batch with all its members
//   range   one request: units and the gaps between them that are cheaper to read than to skip

import { roundUp } from '../../core/units.ts'
import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import type { Span } from './window.ts'

/** The cache file holds chunks in whole blocks of this. SPEC: spec-rafs.md A.11. */
const BLOCK_SIZE = 4096

export interface Unit {
  /** Number of the batch, or -1 for a single chunk. */
  readonly batch: number
  /** In the blob. */
  readonly offset: number
  readonly size: number
  readonly isCompressed: boolean
  readonly uncompressedSize: number
  /** Chunks that are wanted from it, ascending. */
  readonly chunks: readonly number[]
}

export interface Range { readonly offset: number; readonly length: number; readonly units: readonly Unit[] }

export interface RangeLimits {
  /** Bytes between two units that are read rather than skipped. */
  readonly maxGap: number
  /** Bytes of a range of more than one unit, as stored. */
  readonly maxLength: number
  /** The same, decompressed; default `maxLength`. */
  readonly maxSize?: number
}

/** The units of `chunks` (ascending, distinct) in stored order. */
export function unitsOf(layout: ChunkInfoArray, chunks: readonly number[]): Unit[] {
  const units: (Unit & { readonly chunks: number[] })[] = []
  for (const i of chunks) {
    const last = units.at(-1)
    const batch = layout.isBatch(i) ? layout.batchIndex(i) : -1
    if (batch >= 0 && last?.batch === batch) last.chunks.push(i)
    else units.push(unitOf(layout, i, batch))
  }
  return units
}

function unitOf(layout: ChunkInfoArray, i: number, batch: number): Unit & { readonly chunks: number[] } {
  const offset = layout.compressedOffset(i)
  if (batch < 0) {
    return { batch, offset, size: layout.compressedSize(i), isCompressed: layout.isCompressed(i), uncompressedSize: layout.uncompressedSize(i), chunks: [i] }
  }
  const { compressedSize, uncompressedSize } = layout.batch(batch)
  // SPEC: spec-rafs.md C.5: a batch that did not shrink is stored as it is
  return { batch, offset, size: compressedSize, isCompressed: compressedSize !== uncompressedSize, uncompressedSize, chunks: [i] }
}

/** Merges `units` (in stored order) into ranges. */
export function rangesOf(units: readonly Unit[], { maxGap, maxLength, maxSize = maxLength }: RangeLimits): Range[] {
  const ranges: Range[] = []
  let open: Unit[] = []
  let uncompressed = 0
  const shut = () => {
    const [first, last] = [open[0], open.at(-1)]
    if (first !== undefined && last !== undefined) ranges.push({ offset: first.offset, length: last.offset + last.size - first.offset, units: open })
    open = []
    uncompressed = 0
  }
  for (const unit of units) {
    const [first, last] = [open[0], open.at(-1)]
    if (first !== undefined && last !== undefined) {
      const gap = unit.offset - (last.offset + last.size)
      // a negative gap would be overlapping units, which no builder writes: read them apart
      const fits = unit.offset + unit.size - first.offset <= maxLength && uncompressed + unit.uncompressedSize <= maxSize
      if (gap < 0 || gap > maxGap || !fits) shut()
    }
    open.push(unit)
    uncompressed += unit.uncompressedSize
  }
  shut()
  return ranges
}

/**
 * `chunks` (ascending) and what comes with them for little: the other members of their batches, and the chunks behind the last one
 * up to `limit` decompressed bytes in all. Only chunks that `accept`s; the first behind the last one that it does not ends the growth.
 */
export function amplified(layout: ChunkInfoArray, chunks: readonly number[], { limit, accept }: { readonly limit: number; readonly accept: (index: number) => boolean }): number[] {
  const grown = new Set<number>()
  let bytes = 0
  const add = (i: number) => {
    if (!grown.has(i)) bytes += spaceOf(layout, i)
    grown.add(i)
  }
  for (const i of chunks) {
    add(i)
    for (const mate of batchMates(layout, i)) if (accept(mate)) add(mate)
  }
  for (let i = (chunks.at(-1) ?? layout.count) + 1; i < layout.count && bytes + spaceOf(layout, i) <= limit; i++) {
    if (grown.has(i)) continue
    if (!accept(i)) break
    add(i)
    for (const mate of batchMates(layout, i)) if (accept(mate)) add(mate)
  }
  return [...grown].sort((a, b) => a - b)
}

/**
 * `chunks` (ascending) and the units around them whose stored bytes lie in `span`, as far as each `accept`s, without a break and up to `maxSize`
 * decompressed bytes on each side.
 */
export function within(layout: ChunkInfoArray, chunks: readonly number[], { span, maxSize, accept }:
  { readonly span: Span; readonly maxSize: number; readonly accept: (index: number) => boolean }): number[] {
  const [first, last] = [chunks[0]!, chunks.at(-1)!]
  const inside = new Set(chunks)
  let [low, high] = [first, last]
  for (let i = first + 1; i < last; i++) if (!inside.has(i) && accept(i)) inside.add(i)
  for (let [i, left] = [first - 1, maxSize]; i >= 0 && layout.compressedOffset(i) >= span.from && accept(i) && left > 0; i--) {
    inside.add(low = i)
    left -= spaceOf(layout, i)
  }
  for (let [i, left] = [last + 1, maxSize]; i < layout.count && layout.compressedOffset(i) < span.to && accept(i) && left > 0; i++) {
    inside.add(high = i)
    left -= spaceOf(layout, i)
  }
  // a batch is decoded as a whole, so its members come along, also those beyond an edge
  for (const edge of [first, low, high]) for (const mate of batchMates(layout, edge)) if (accept(mate)) inside.add(mate)
  return [...inside].sort((a, b) => a - b)
}

/** The stored bytes of `chunks` (ascending), from the first to the last. */
export function spanOf(layout: ChunkInfoArray, chunks: readonly number[]): Span {
  const [first] = unitsOf(layout, [chunks[0]!])
  const [last] = unitsOf(layout, [chunks.at(-1)!])
  return { from: first!.offset, to: last!.offset + last!.size }
}

/** Other members of the batch of chunk `i`: they are numbered consecutively, since any chunk outside closes a batch. */
function* batchMates(layout: ChunkInfoArray, i: number): Generator<number> {
  if (!layout.isBatch(i)) return
  const batch = layout.batchIndex(i)
  const isMate = (j: number) => j >= 0 && j < layout.count && layout.isBatch(j) && layout.batchIndex(j) === batch
  for (let j = i - 1; isMate(j); j--) yield j
  for (let j = i + 1; isMate(j); j++) yield j
}

/** What a chunk takes in the cache file: whole blocks, so that tiny files do not make one miss fetch a hundred thousand of them. */
function spaceOf(layout: ChunkInfoArray, i: number): number {
  return roundUp(layout.uncompressedSize(i), BLOCK_SIZE)
}

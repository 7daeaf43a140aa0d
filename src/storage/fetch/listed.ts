// Requests for a list of chunks in the order of their use: each begins with the chunk that is wanted next and takes what lies behind it along, as far
// as that is on the list too.

import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import { unitsOf, type RangeLimits } from './plan.ts'

/** `indices` (distinct, the first is wanted first) in runs that are one request each, in the order of the first use of anything in them. */
export function runsOfList(layout: ChunkInfoArray, indices: readonly number[], { maxGap, maxLength, maxSize = maxLength }: RangeLimits): number[][] {
  const rankOf = new Map(indices.map((index, rank) => [index, rank]))
  const units = unitsOf(layout, [...indices].sort((a, b) => a - b)).map((unit) => ({ ...unit, rank: Math.min(...unit.chunks.map((index) => rankOf.get(index)!)), isTaken: false }))
  const runs: number[][] = []
  for (const first of units.map((unit, at) => ({ unit, at })).sort((a, b) => a.unit.rank - b.unit.rank)) {
    if (first.unit.isTaken) continue
    const run: number[] = []
    let size = 0
    let end = first.unit.offset
    for (let unit: (typeof units)[number] | undefined = first.unit, at = first.at; unit !== undefined && !unit.isTaken; unit = units[++at]) {
      const gap = unit.offset - end
      const isTooLong = unit.offset + unit.size - first.unit.offset > maxLength || size + unit.uncompressedSize > maxSize
      if (run.length > 0 && (gap < 0 || gap > maxGap || isTooLong)) break
      unit.isTaken = true
      run.push(...unit.chunks)
      size += unit.uncompressedSize
      end = unit.offset + unit.size
    }
    runs.push(run)
  }
  return runs
}

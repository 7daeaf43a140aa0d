import { describe, expect, it } from 'vitest'
import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import { runsOfList } from './listed.ts'

/** Chunks of 10 stored and 100 decompressed bytes, one behind the other. */
const layout = {
  count: 20, compressedOffset: (i: number) => i * 10, compressedSize: () => 10, uncompressedSize: () => 100, isCompressed: () => true, isBatch: () => false,
} as unknown as ChunkInfoArray
const runs = (indices: number[], over = {}) => runsOfList(layout, indices, { maxGap: 0, maxLength: 1000, ...over })

describe('runsOfList', () => {
  it('begins with what is used first, and takes what lies behind it along', () => {
    expect(runs([5, 12, 6, 4, 13, 7])).toEqual([[5, 6, 7], [12, 13], [4]])
  })

  it('reads over small gaps, and cuts what would be too long', () => {
    expect(runs([1, 3, 5], { maxGap: 10 })).toEqual([[1, 3, 5]])
    expect(runs([1, 2, 3, 4, 5], { maxLength: 20, maxSize: 1000 })).toEqual([[1, 2], [3, 4], [5]])
    expect(runs([1, 2, 3, 4, 5], { maxSize: 300 })).toEqual([[1, 2, 3], [4, 5]])
  })

  it('has every chunk once', () => {
    const indices = [3, 19, 0, 7, 8, 2, 11, 1]
    expect(runs(indices).flat().sort((a, b) => a - b)).toEqual([...indices].sort((a, b) => a - b))
    expect(runs([])).toEqual([])
  })
})

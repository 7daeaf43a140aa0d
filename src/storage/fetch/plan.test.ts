import { describe, expect, it } from 'vitest'
import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import { amplified, rangesOf, unitsOf, within } from './plan.ts'

/** Chunks as [compressed size, decompressed size, batch]; batch members are stored with the first of them. */
function layoutOf(chunks: readonly (readonly [stored: number, size: number, batch?: number])[]): ChunkInfoArray {
  const offsets: number[] = []
  let end = 0
  for (const [i, [stored, , batch]] of chunks.entries()) {
    offsets.push(batch !== undefined && chunks[i - 1]?.[2] === batch ? offsets[i - 1]! : end)
    end = offsets[i]! + stored
  }
  const batchOf = (k: number) => chunks.filter(([, , batch]) => batch === k)
  return {
    count: chunks.length,
    compressedOffset: (i: number) => offsets[i]!,
    compressedSize: (i: number) => chunks[i]![0],
    uncompressedSize: (i: number) => chunks[i]![1],
    isCompressed: () => true,
    isBatch: (i: number) => chunks[i]![2] !== undefined,
    batchIndex: (i: number) => chunks[i]![2]!,
    batch: (k: number) => ({ compressedSize: batchOf(k)[0]![0], uncompressedSize: batchOf(k).reduce((sum, [, size]) => sum + size, 0) }),
  } as unknown as ChunkInfoArray
}

const plain = layoutOf([[10, 100], [10, 100], [10, 100], [10, 100], [10, 100]])
const batched = layoutOf([[10, 100], [20, 50, 0], [20, 60, 0], [20, 70, 0], [10, 100]])

describe('unitsOf', () => {
  it('makes one unit of a batch, whichever members are wanted', () => {
    expect(unitsOf(batched, [0, 1, 3, 4])).toMatchObject([
      { batch: -1, offset: 0, size: 10, chunks: [0] }, { batch: 0, offset: 10, size: 20, uncompressedSize: 180, chunks: [1, 3] }, { batch: -1, offset: 30, size: 10, chunks: [4] }])
  })
})

describe('rangesOf', () => {
  it('joins neighbours, and reads over a small gap but not over a large one', () => {
    const ranges = (maxGap: number) => rangesOf(unitsOf(plain, [0, 2, 3]), { maxGap, maxLength: 1000 }).map(({ offset, length }) => [offset, length])
    expect(ranges(10)).toEqual([[0, 40]])
    expect(ranges(9)).toEqual([[0, 10], [20, 20]])
  })

  it('keeps ranges short in both spaces, and never cuts a unit', () => {
    const lengths = (maxLength: number) => rangesOf(unitsOf(plain, [0, 1, 2, 3, 4]), { maxGap: 0, maxLength }).map(({ units }) => units.length)
    expect(lengths(200)).toEqual([2, 2, 1])
    expect(lengths(1)).toEqual([1, 1, 1, 1, 1])
  })
})

describe('amplified', () => {
  it('adds what lies behind, up to the limit and to the first chunk that is not wanted', () => {
    expect(amplified(plain, [1], { limit: 3 * 4096, accept: () => true })).toEqual([1, 2, 3])
    expect(amplified(plain, [1], { limit: 10 * 4096, accept: (i) => i !== 3 })).toEqual([1, 2])
    expect(amplified(plain, [1], { limit: 0, accept: () => true })).toEqual([1])
  })

  it('takes the whole batch of a member, also before it and beyond the limit', () => {
    expect(amplified(batched, [2], { limit: 0, accept: () => true })).toEqual([1, 2, 3])
    expect(amplified(batched, [2], { limit: 0, accept: (i) => i !== 1 })).toEqual([2, 3])
  })
})

describe('within', () => {
  const all = () => true
  it('adds neighbours on both sides whose stored bytes begin in the span', () => {
    expect(within(plain, [2], { span: { from: 10, to: 40 }, maxSize: 1e6, accept: all })).toEqual([1, 2, 3])
    expect(within(plain, [2], { span: { from: 11, to: 31 }, maxSize: 1e6, accept: all })).toEqual([2, 3])
  })

  it('stops at what it may not have, and at the limit of decompressed bytes', () => {
    expect(within(plain, [2], { span: { from: 0, to: 50 }, maxSize: 1e6, accept: (i) => i !== 1 && i !== 4 })).toEqual([2, 3])
    expect(within(plain, [2], { span: { from: 0, to: 50 }, maxSize: 1, accept: all })).toEqual([1, 2, 3])
  })

  it('takes whole batches, and the holes between what is wanted', () => {
    expect(within(batched, [0], { span: { from: 0, to: 11 }, maxSize: 1, accept: all })).toEqual([0, 1, 2, 3])
    expect(within(plain, [1, 3], { span: { from: 10, to: 30 }, maxSize: 1e6, accept: all })).toEqual([1, 2, 3])
  })
})

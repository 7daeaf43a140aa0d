import { describe, expect, it } from 'vitest'
import { verityLevels, verityTreeSize } from './hash-tree.ts'

describe('verityLevels', () => {
  it.each([
    [0, []], [1, []],
    [2, [{ offset: 0, blocks: 1, digests: 2 }]], [128, [{ offset: 0, blocks: 1, digests: 128 }]],
    [129, [{ offset: 4096, blocks: 2, digests: 129 }, { offset: 0, blocks: 1, digests: 2 }]],
    [128 * 128 + 1, [{ offset: 3 * 4096, blocks: 129, digests: 16385 }, { offset: 4096, blocks: 2, digests: 129 }, { offset: 0, blocks: 1, digests: 2 }]],
  ])('lays the levels over %i blocks out, the top first', (blocks, levels) => {
    expect(verityLevels(blocks)).toEqual(levels)
    expect(verityTreeSize(levels)).toBe(levels.reduce((sum, level) => sum + level.blocks, 0) * 4096)
  })
})

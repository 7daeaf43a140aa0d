// Sharing of equal bytes, never of others.

import { describe, expect, it } from 'vitest'
import { sharedBytes } from './shared-bytes.ts'

describe('shared bytes', () => {
  it('are those of the first holder, for whoever has the same', () => {
    const first = sharedBytes('blob-1', Uint8Array.of(9, 1, 2, 3).subarray(1))
    const second = sharedBytes('blob-1', Uint8Array.of(1, 2, 3))
    expect([...second]).toEqual([1, 2, 3])
    expect(second.buffer).toBe(first.buffer)
  })

  it('are nobody else\'s where one byte or the length differs', () => {
    const first = sharedBytes('blob-2', Uint8Array.of(1, 2, 3))
    for (const other of [Uint8Array.of(1, 2, 4), Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3, 0)]) {
      expect(sharedBytes('blob-2', other)).toBe(other)
    }
    expect([...first]).toEqual([1, 2, 3])
  })
})

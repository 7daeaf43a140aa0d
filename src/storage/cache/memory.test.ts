import { describe, expect, it } from 'vitest'
import { GiB, MiB } from '../../core/units.ts'
import { ChunkMemory, chunkMemoryLimit } from './memory.ts'

describe('ChunkMemory', () => {
  it('shrinks with the memory that the process may use', () => {
    expect([64 * GiB, 512 * MiB, 256 * MiB, 64 * MiB].map(chunkMemoryLimit)).toEqual([32 * MiB, 32 * MiB, 16 * MiB, 4 * MiB])
  })

  it('keeps the latest chunks up to its limit, and none that is larger', () => {
    const memory = new ChunkMemory(100)
    for (const name of ['a', 'b', 'c']) memory.set(name, new Uint8Array(40))
    memory.set('large', new Uint8Array(101))
    expect(['a', 'b', 'c', 'large'].map((name) => memory.get(name)?.length)).toEqual([undefined, 40, 40, undefined])
  })
})

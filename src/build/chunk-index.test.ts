import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import { ChunkIndex } from './chunk-index.ts'

const digest = (i: number) => createHash('sha256').update(String(i)).digest()

function filled(count: number): { index: ChunkIndex; chunks: ChunkStore } {
  const chunks = new ChunkStore()
  const index = new ChunkIndex(chunks)
  for (let i = 0; i < count; i++) {
    const id = chunks.add()
    chunks.setDigest(id, digest(i), 0)
    chunks.setUncompressedSize(id, i + 1)
    index.add(id)
  }
  return { index, chunks }
}

describe('chunk index', () => {
  it('finds every chunk through several growths, and no other', () => {
    const { index } = filled(20_000)
    for (let i = 0; i < 20_000; i++) if (index.find(digest(i), 0, i + 1) !== i) throw new Error(`chunk ${i}`)
    expect(index.find(digest(20_000), 0, 1)).toBe(-1)
  })

  it('refuses a digest with another size', () => {
    expect(filled(3).index.find(digest(1), 0, 3)).toBe(-1)
  })

  it('keeps the first chunk of a digest', () => {
    const { index, chunks } = filled(3)
    const id = chunks.add()
    chunks.setDigest(id, digest(1), 0)
    chunks.setUncompressedSize(id, 2)
    index.add(id)
    expect(index.find(digest(1), 0, 2)).toBe(1)
  })

  it('tells digests apart that begin alike', () => {
    const chunks = new ChunkStore()
    const index = new ChunkIndex(chunks)
    const twins = [Buffer.alloc(32, 7), Buffer.alloc(32, 7)]
    twins[1]![31] = 8
    for (const twin of twins) {
      const id = chunks.add()
      chunks.setDigest(id, twin, 0)
      index.add(id)
    }
    expect(twins.map((twin) => index.find(twin, 0, 0))).toEqual([0, 1])
  })
})

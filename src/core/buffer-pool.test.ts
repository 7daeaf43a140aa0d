import { describe, expect, it } from 'vitest'
import { MiB } from './units.ts'
import { BufferPool } from './buffer-pool.ts'

describe('BufferPool', () => {
  it('gives the smallest buffer that fits, and never one that is in use', () => {
    const pool = new BufferPool()
    const [small, large] = [pool.take(MiB), pool.take(3 * MiB)]
    expect(small === large).toBe(false)
    pool.give(large)
    pool.give(small)
    expect(pool.take(MiB - 5) === small).toBe(true)
    expect(pool.take(MiB - 5) === large).toBe(true)
    expect(pool.take(1) === large).toBe(false)
  })

  it('lends what it takes back itself, and nothing else', () => {
    const pool = new BufferPool()
    const loan = pool.lend()
    const bytes = loan.allocate(10)
    expect(bytes.length).toBe(10)
    loan.giveBack(Buffer.from(new ArrayBuffer(10)))
    loan.giveBack(bytes)
    loan.giveBack(bytes)
    const [again, other] = [pool.take(5), pool.take(5)]
    expect(again.buffer === bytes.buffer).toBe(true)
    expect(other.buffer === bytes.buffer).toBe(false)
  })

  it('keeps a bounded number of bytes', () => {
    const pool = new BufferPool()
    const given = Array.from({ length: 8 }, (_, i) => pool.take((i + 1) * MiB))
    for (const buffer of given) pool.give(buffer)
    const kept = Array.from({ length: 8 }, () => pool.take(1)).filter((buffer) => given.includes(buffer))
    expect(kept.length).toBeLessThanOrEqual(8)
    expect(kept.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(12 * MiB)
  })
})

import { describe, expect, it } from 'vitest'
import { Arriving } from './arriving.ts'
import type { Range, Unit } from './plan.ts'

const units: Unit[] = [100, 110, 130, 160].map((offset, i) => ({ batch: -1, offset, size: [10, 20, 30, 40][i]!, isCompressed: true, uncompressedSize: 99, chunks: [i] }))
const range: Range = { offset: 100, length: 100, units }
const settle = () => new Promise(setImmediate)

/** Decoding that ends when the test says so. */
function decoding() {
  const calls: (readonly [buffer: number, units: number[]])[] = []
  const ends: (() => void)[] = []
  const arriving = new Arriving(range, (buffer, part) => {
    calls.push([buffer[0]!, part.map(({ chunks }) => chunks[0]!)])
    return new Promise((resolve) => ends.push(resolve))
  })
  return { arriving, calls, async end() { ends.shift()!(); await settle() } }
}

describe('Arriving', () => {
  it('decodes units as they are complete, and while one is being decoded gathers the next', async () => {
    const { arriving, calls, end } = decoding()
    const buffer = Uint8Array.of(1)
    arriving.take(buffer, 9)
    expect(calls).toEqual([])
    arriving.take(buffer, 10)
    arriving.take(buffer, 35)
    expect(calls).toEqual([[1, [0]]])
    arriving.take(buffer, 61)
    expect(calls).toEqual([[1, [0]]])
    await end() // nothing more comes: what has come is decoded all the same
    expect(calls).toEqual([[1, [0]], [1, [1, 2]]])
    const finished = arriving.finish(buffer)
    await end()
    expect(calls).toEqual([[1, [0]], [1, [1, 2]], [1, [3]]])
    await end()
    await finished
  })

  it('goes on with the buffer of a second attempt, without decoding anything twice', async () => {
    const { arriving, calls, end } = decoding()
    arriving.take(Uint8Array.of(1), 30)
    await end()
    arriving.take(Uint8Array.of(2), 30)
    arriving.take(Uint8Array.of(2), 60)
    await settle()
    expect(calls).toEqual([[1, [0, 1]], [2, [2]]])
  })

  it('fails with what decoding fails with, and decodes nothing more', async () => {
    const failing = new Arriving(range, () => Promise.reject(new Error('broken')))
    failing.take(Uint8Array.of(1), 10)
    await settle()
    await expect(failing.finish(Uint8Array.of(1))).rejects.toThrow('broken')
    await failing.settle()
  })
})

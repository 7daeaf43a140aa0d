import { describe, expect, it } from 'vitest'
import { Footprint, windowOf } from './window.ts'

const limits = { base: 10, near: 100, longest: 50 }
const footprint = (...spans: (readonly [number, number])[]) => {
  const made = new Footprint()
  for (const [from, to] of spans) made.add({ from, to })
  return made
}

describe('windowOf', () => {
  it.each([
    ['nothing near', footprint(), [1000, 1020], [990, 1030]],
    ['the beginning of a blob', footprint(), [4, 8], [0, 18]],
    ['a span far away', footprint([0, 500]), [1000, 1020], [990, 1030]],
    ['a span in front: closes the gap and grows ahead', footprint([900, 960]), [1000, 1020], [960, 1050]],
    ['a span behind: closes the gap and grows back', footprint([1050, 1110]), [1000, 1020], [970, 1050]],
    ['never more than the longest', footprint([0, 990]), [1000, 1020], [990, 1070]],
  ] as const)('%s', (_, fetched, [from, to], [low, high]) => {
    expect(windowOf({ from, to }, fetched, limits)).toEqual({ from: low, to: high })
  })
})

describe('Footprint', () => {
  it('joins spans that touch, in any order', () => {
    const joined = footprint([50, 60], [10, 20], [30, 40], [20, 30], [100, 110], [40, 50])
    expect(joined.around({ from: 70, to: 80 })).toEqual({ before: { from: 10, to: 60 }, after: { from: 100, to: 110 } })
    expect(joined.around({ from: 0, to: 5 })).toEqual({ before: undefined, after: { from: 10, to: 60 } })
  })

  it('stays small whatever is read', () => {
    const many = footprint()
    for (let i = 0; i < 10_000; i++) many.add({ from: i * 10, to: i * 10 + 1 })
    many.add({ from: 0, to: 100_000 })
    expect(many.around({ from: 200_000, to: 200_001 })).toEqual({ before: { from: 0, to: 100_000 }, after: undefined })
  })
})

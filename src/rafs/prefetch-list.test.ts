import { describe, expect, it } from 'vitest'
import { prefetchItem, traceLine } from './prefetch-list.ts'

describe('prefetchItem', () => {
  it.each([
    ['/usr/bin/python3', '/usr/bin/python3', undefined],
    ['  /a b\t', '/a b', undefined],
    ['/a\t0\t4096\t1.5', '/a', { offset: 0, length: 4096 }],
    ['/a\tb', '/a\tb', undefined],
    ['/a\t0\tx\t1', '/a\t0\tx\t1', undefined],
  ])('%j', (line, path, range) => {
    expect(prefetchItem(line)).toEqual({ path, range })
  })

  it('takes nothing that is not absolute', () => {
    for (const line of ['', '# nydus trace', 'usr/bin', '\t']) expect(prefetchItem(line)).toBeUndefined()
  })

  it('reads what a trace writes', () => {
    expect(prefetchItem(traceLine({ path: '/x y', offset: 12, length: 5, ms: 3.25 }))).toEqual({ path: '/x y', range: { offset: 12, length: 5 } })
  })
})

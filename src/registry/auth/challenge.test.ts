import { describe, expect, it } from 'vitest'
import { parseChallenge } from './challenge.ts'

describe('a challenge', () => {
  it.each([
    ['Basic realm="x"', { scheme: 'basic' }],
    ['bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push repository:c:pull"',
      { scheme: 'bearer', realm: 'https://a/token', service: 's', scopes: ['repository:a/b:pull,push', 'repository:c:pull'] }],
    ['Bearer realm = "https://a/t\\"x" , service=plain', { scheme: 'bearer', realm: 'https://a/t"x', service: 'plain', scopes: [] }],
    ['Basic realm="x", Bearer realm="https://a"', { scheme: 'bearer', realm: 'https://a', service: undefined, scopes: [] }],
    ['Negotiate, Basic realm="a, b"', { scheme: 'basic' }],
  ])('%s', (header, expected) => {
    expect(parseChallenge(header)).toEqual(expected)
  })

  it.each([undefined, '', 'Bearer', 'Digest realm="x"', `Basic ${'x'.repeat(9000)}`, '"', '=,=', 'Bearer service="s"'])('that nobody can answer is none: %s', (header) => {
    expect(parseChallenge(header)).toBe(undefined)
  })

  it('of any shape is read in linear time', () => {
    const started = performance.now()
    for (const text of ['a='.repeat(4000), '"\\'.repeat(4000), ' ,'.repeat(4000), `a="${'\\"'.repeat(4000)}`]) parseChallenge(text)
    expect(performance.now() - started).toBeLessThan(500)
  })
})

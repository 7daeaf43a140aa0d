import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { familiarReference, formatReference, manifestName, parseReference, registryHost, withDefaultTag } from './reference.ts'

const sha256 = `sha256:${'0123456789abcdef'.repeat(4)}`

describe('parseReference', () => {
  it.each([
    ['alpine', 'docker.io/library/alpine', 'alpine'],
    ['alpine:3.20', 'docker.io/library/alpine:3.20', 'alpine:3.20'],
    ['user/app', 'docker.io/user/app', 'user/app'],
    ['docker.io/alpine', 'docker.io/library/alpine', 'alpine'],
    ['index.docker.io/library/alpine', 'docker.io/library/alpine', 'alpine'],
    ['docker.io/library/a/b', 'docker.io/library/a/b', 'library/a/b'],
    ['localhost/app', 'localhost/app', 'localhost/app'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c'],
    ['[::1]:5000/app', '[::1]:5000/app', '[::1]:5000/app'],
    ['Registry/app', 'Registry/app', 'Registry/app'],
    ['ghcr.io/a__b/c-d.e--f:_x', 'ghcr.io/a__b/c-d.e--f:_x', 'ghcr.io/a__b/c-d.e--f:_x'],
    [`alpine:3@${sha256}`, `docker.io/library/alpine:3@${sha256}`, `alpine:3@${sha256}`],
    [`host:1/x@sha512:${'ab'.repeat(64)}`, `host:1/x@sha512:${'ab'.repeat(64)}`, `host:1/x@sha512:${'ab'.repeat(64)}`],
  ])('completes %s', (text, full, familiar) => {
    const reference = parseReference(text)
    expect(formatReference(reference)).toBe(full)
    expect(familiarReference(reference)).toBe(familiar)
    expect(parseReference(full)).toEqual(reference)
    expect(parseReference(familiar)).toEqual(reference)
  })

  it.each(['', 'UPPER', 'a/B', 'a b', ':tag', 'a:', 'a@', 'a@sha256:12', 'a//b', '/a', 'a/', '-a', 'a_', 'a___b', 'a..b', 'a:-x', `a:${'t'.repeat(129)}`,
    'http://host/a', 'host:port/a', '.host/a', 'a:1:2', `${'0'.repeat(64)}`, 'a'.repeat(256), 'x'.repeat(5000), 'a\nb', 'é', `a@md5:${'0'.repeat(32)}`, '[zz]/a',
  ])('refuses %j', (text) => {
    let caught: unknown
    try { parseReference(text) } catch (error) { caught = error }
    expect(hasCode(caught, 'REGISTRY_BAD_REFERENCE')).toBe(true)
  })

  it('survives any text, and accepts again what it accepted', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z0-9.:@/_-]{1,40}$/)), (text) => {
      let reference: ReturnType<typeof parseReference>
      try { reference = parseReference(text) } catch (error) { expect(hasCode(error, 'REGISTRY_BAD_REFERENCE')).toBe(true); return }
      expect(parseReference(formatReference(reference))).toEqual(reference)
      expect(parseReference(familiarReference(reference))).toEqual(reference)
    }))
  })

  it('takes time linear in hostile text', () => {
    const started = performance.now()
    for (const text of [`${'a-'.repeat(500)}!`, `${'a.'.repeat(500)}/`, `${'a_'.repeat(100)}__`]) expect(() => parseReference(text)).toThrow()
    expect(performance.now() - started).toBeLessThan(200)
  })
})

describe('what a reference asks the registry for', () => {
  it('prefers the digest, then the tag, then latest', () => {
    expect(manifestName(parseReference(`a:1@${sha256}`))).toBe(sha256)
    expect(manifestName(parseReference('a:1'))).toBe('1')
    expect(manifestName(parseReference('a'))).toBe('latest')
    expect(withDefaultTag(parseReference('a')).tag).toBe('latest')
    expect(withDefaultTag(parseReference(`a@${sha256}`)).tag).toBeUndefined()
  })
  it('talks to the real host of docker.io', () => {
    expect(registryHost(parseReference('alpine'))).toBe('registry-1.docker.io')
    expect(registryHost(parseReference('localhost:5000/a'))).toBe('localhost:5000')
  })
})

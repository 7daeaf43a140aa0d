import { describe, expect, it } from 'vitest'
import { formatLocation, openTarget, parseLocation } from './index.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

describe('a location', () => {
  it.each([
    ['alpine', 'docker.io/library/alpine:latest'],
    ['docker://alpine:3', 'docker.io/library/alpine:3'],
    ['localhost:5000/a/b:1', 'localhost:5000/a/b:1'],
    [`r.example/a@${DIGEST}`, `r.example/a@${DIGEST}`],
    ['oci:/d', 'oci:/d'],
    ['oci:/d:latest', 'oci:/d:latest'],
    ['oci:/d:app:1', 'oci:/d:app:1'],
    [`oci:/d@${DIGEST}`, `oci:/d@${DIGEST}`],
    ['oci:/with@sign:x', 'oci:/with@sign:x'],
    ['oci-archive:./a.tar', 'oci-archive:./a.tar'],
    ['docker-archive:/a.tar:docker.io/library/alpine:3', 'docker-archive:/a.tar:docker.io/library/alpine:3'],
  ])('%s', (text, formatted) => {
    expect(formatLocation(parseLocation(text))).toBe(formatted)
    expect(parseLocation(formatted)).toEqual(parseLocation(formatLocation(parseLocation(text))))
  })

  it('by digest prefers the digest to the tag', () => {
    expect(parseLocation(`oci:/d:tag@${DIGEST}`)).toEqual({ kind: 'oci', path: '/d', image: DIGEST })
  })

  it.each(['', 'docker:alpine', 'oci:', 'oci::x', 'oci:/d:', 'docker-archive:', 'docker://', 'a b', 'ftp://x'])('that is none is refused: "%s"', (text) => {
    expect(() => parseLocation(text)).toThrow(expect.objectContaining({ code: 'REGISTRY_BAD_REFERENCE' }))
  })

  it.each(['oci', 'oci-archive', 'docker-archive'])('with a digest is no target: %s', async (kind) => {
    await expect(openTarget(`${kind}:/nonexistent@${DIGEST}`, { signal: new AbortController().signal })).rejects.toMatchObject({ code: 'REGISTRY_BAD_REFERENCE' })
  })
})

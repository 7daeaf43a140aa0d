import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { answer, forwarding, startFaultRegistry, type FaultRegistry } from '../../../test/support/fault-registry.ts'
import { blobOf, contentOf, makeImage, pushImage, QUICK_RETRY, temporaryDirectory } from '../../../test/support/images.ts'
import { MiB } from '../../core/units.ts'
import { collect } from '../content.ts'
import { copyBlob, openSource, openTarget, type ImageTarget, type OpenOptions } from '../index.ts'

interface Bench { readonly registry: FaultRegistry; readonly target: ImageTarget; readonly signal: AbortSignal; readonly spool: string; readonly options: OpenOptions }

const PIECE = 100_000

async function bench(use: (bench: Bench) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory()
  await using spool = await temporaryDirectory()
  await using registry = await startFaultRegistry(directory.path)
  const signal = AbortSignal.timeout(20_000)
  const options = { signal, plainHttp: true, retry: QUICK_RETRY, env: {}, pieceSize: PIECE, workDirectory: spool.path }
  await using target = await openTarget(`${registry.host}/a/b:1`, options)
  await use({ registry, target, signal, spool: spool.path, options })
  expect(await readdir(spool.path)).toEqual([])
}

/** The blob as the registry has it now. */
async function stored({ registry, options, signal }: Bench, descriptor: ReturnType<typeof blobOf>['descriptor']): Promise<Buffer> {
  await using source = await openSource(`${registry.backend.host}/a/b:1`, options)
  return Buffer.from(await collect(source.openBlob(descriptor, { signal }), 64 * MiB))
}

const small = () => blobOf(randomBytes(5000), 'x/y')
const large = () => blobOf(randomBytes(3 * PIECE + 17), 'x/y')
const PATCH = /^PATCH /
const PUT_BLOB = /^PUT .*uploads/

describe('pushing a blob', () => {
  it.each([['in one request', small], ['in pieces', large]])('works %s', (_, make) => bench(async (b) => {
    const { descriptor, bytes } = make()
    const progress: number[] = []
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal, onProgress: (n) => progress.push(n) })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    expect(progress.at(-1)).toBe(bytes.length)
  }))

  it('sends nothing that is already there', () => bench(async (b) => {
    const { descriptor, bytes } = small()
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    const before = b.registry.count(/POST/)
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    expect(await b.target.hasBlob(descriptor, { signal: b.signal })).toBe(true)
    expect(b.registry.count(/POST/)).toBe(before)
  }))

  it('falls back to one request when pieces are refused', () => bench(async (b) => {
    b.registry.fault({ match: PATCH, act: answer(405), times: 9 })
    const { descriptor, bytes } = large()
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    expect(b.registry.count(PATCH)).toBe(1)
  }))

  it('goes on where the registry stopped when a piece broke off', () => bench(async (b) => {
    b.registry.fault({ match: PATCH, act: forwarding({}), times: 1 })
    b.registry.fault({ match: PATCH, act: forwarding({ cutRequestAfter: 65_000 }) })
    const { descriptor, bytes } = large()
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    const resumed = b.registry.seen.filter((request) => request.method === 'PATCH').map((request) => request.headers['content-range']!)
    expect(Number(resumed[2]!.split('-')[0])).toBeGreaterThan(PIECE)
    expect(Number(resumed[2]!.split('-')[0])).toBeLessThan(2 * PIECE)
  }))

  it('sends a broken whole body again, in a new session', () => bench(async (b) => {
    b.registry.fault({ match: PUT_BLOB, act: forwarding({ cutRequestAfter: 1 }), times: 2 })
    const { descriptor, bytes } = blobOf(randomBytes(PIECE - 1), 'x/y')
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    expect(b.registry.count(/^POST/)).toBe(3)
  }))

  it('believes the registry, not the lost answer, about what arrived', () => bench(async (b) => {
    b.registry.fault({ match: PUT_BLOB, act: forwarding({ loseAnswer: true }) })
    const { descriptor, bytes } = small()
    await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    expect(b.registry.count(PUT_BLOB)).toBe(1)
  }))

  it.each([
    ['relative', (location: string) => location],
    ['absolute', (location: string, host: string) => `http://${host}${location}`],
    ['with a query that must come back as it was', (location: string) => `${location}?_state=a%2Fb%3D%3D&x=1`],
  ])('follows upload locations that are %s', (_, change) => bench(async (b) => {
    const changeHeaders = (headers: import('node:http').OutgoingHttpHeaders) => {
      if (String(headers.location).includes('/uploads/')) headers.location = change(String(headers.location), b.registry.host)
    }
    b.registry.fault({ match: /^(POST|PATCH)/, act: forwarding({ changeHeaders }), times: 99 })
    for (const { descriptor, bytes } of [small(), large()]) {
      await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
      expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    }
    if (_.includes('query')) {
      for (const request of b.registry.seen.filter(({ method }) => method === 'PUT')) expect(request.url).toMatch(/\?_state=a%2Fb%3D%3D&x=1&digest=sha256%3A/)
    }
  }))

  it('refuses content of another digest, and of another size, and leaves nothing', () => bench(async (b) => {
    const { descriptor, bytes } = small()
    const other = Buffer.from(bytes)
    other[9]! ^= 1
    await expect(b.target.pushBlob(descriptor, contentOf(other), { signal: b.signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    await expect(b.target.pushBlob({ ...descriptor, size: 4000 }, () => contentOf(bytes)({ offset: 0, length: 5000, signal: b.signal }), { signal: b.signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    expect(await b.target.hasBlob(descriptor, { signal: b.signal })).toBe(false)
  }))

  it('reports a source that fails, not the upload that it broke', () => bench(async (b) => {
    const { descriptor } = small()
    const content = async function* () { yield Buffer.alloc(10); throw Object.assign(new Error('source'), { code: 'REGISTRY_DIGEST_MISMATCH' }) }
    await expect(b.target.pushBlob(descriptor, content, { signal: b.signal })).rejects.toThrow('source')
  }))

  it('ends with the caller\'s reason when aborted', () => bench(async (b) => {
    const leaving = new AbortController()
    const { descriptor, bytes } = large()
    const pushing = b.target.pushBlob(descriptor, contentOf(bytes), { signal: leaving.signal, onProgress: () => leaving.abort(new Error('enough')) })
    await expect(pushing).rejects.toThrow('enough')
  }))
})

describe('mounting', () => {
  it('takes a blob of another repository without sending it', () => bench(async (b) => {
    const image = makeImage([5000])
    await using other = await openTarget(`${b.registry.host}/other:1`, b.options)
    await pushImage(other, image, b.signal)
    await using source = await openSource(`${b.registry.host}/other:1`, b.options)
    b.registry.fault({ match: /^HEAD/, act: answer(404) })
    expect(await copyBlob(source, b.target, { descriptor: image.layers[0]!.descriptor, signal: b.signal })).toBe('mounted')
  }))

  it('that is refused becomes an ordinary push', () => bench(async (b) => {
    const image = makeImage([5000])
    await using other = await openTarget(`${b.registry.host}/other:1`, b.options)
    await pushImage(other, image, b.signal)
    await using source = await openSource(`${b.registry.host}/other:1`, b.options)
    const { descriptor } = image.layers[0]!
    b.registry.fault({ match: /^HEAD/, act: answer(404), times: 2 })
    b.registry.fault({ match: /mount=/, act: ({ response }) => void response.writeHead(202, { location: '/v2/a/b/blobs/uploads/00000000-0000-0000-0000-000000000000' }).end() })
    expect(await copyBlob(source, b.target, { descriptor, signal: b.signal })).toBe('sent')
    expect(b.registry.count(/^DELETE .*uploads/)).toBe(1) // the session that the 202 opened
  }))
})

describe('pushing a stream', () => {
  async function* stream(bytes: Buffer): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += 300_000) yield bytes.subarray(at, at + 300_000)
  }

  it.each([['small', 1000, 0], ['empty', 0, 0], ['large, in pieces', 33 * MiB, 3]])('learns digest and size at the end: %s', (_, size, patches) => bench(async (b) => {
    const { descriptor, bytes } = blobOf(randomBytes(size), 'x/y')
    expect(await b.target.pushStream(stream(bytes), { signal: b.signal })).toEqual({ digest: descriptor.digest, size })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
    expect(b.registry.count(PATCH)).toBe(patches)
  }))

  it.each([['the first', 0], ['the second', 1]])('survives that %s piece is refused', (_, after) => bench(async (b) => {
    if (after > 0) b.registry.fault({ match: PATCH, act: forwarding({}), times: after })
    b.registry.fault({ match: PATCH, act: answer(416) })
    const { descriptor, bytes } = blobOf(randomBytes(33 * MiB), 'x/y')
    await b.target.pushStream(stream(bytes), { signal: b.signal })
    expect((await stored(b, descriptor)).equals(bytes)).toBe(true)
  }))

  it('whose producer fails leaves nothing behind', () => bench(async (b) => {
    const failing = async function* () { yield Buffer.alloc(20 * MiB); throw new Error('producer') }
    await expect(b.target.pushStream(failing(), { signal: b.signal })).rejects.toThrow('producer')
    expect(b.registry.count(/^DELETE .*uploads/)).toBe(1)
  }))
})

describe('pushing a manifest', () => {
  it('by digest does not move the tag, and finally does', () => bench(async (b) => {
    const image = makeImage([100])
    for (const { descriptor, bytes } of [image.config, ...image.layers]) await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    const { descriptor: { mediaType, digest }, bytes } = image.manifest
    await b.target.pushManifest(bytes, { mediaType, final: false, signal: b.signal })
    expect(await b.target.fetchManifest(undefined, { signal: b.signal })).toBe(undefined)
    expect((await b.target.fetchManifest(digest, { signal: b.signal }))?.descriptor).toEqual(image.manifest.descriptor)
    await b.target.pushManifest(bytes, { mediaType, final: true, signal: b.signal })
    expect((await b.target.fetchManifest(undefined, { signal: b.signal }))?.descriptor.digest).toBe(digest)
  }))

  it('is checked against what the registry says that it stored', () => bench(async (b) => {
    const { config, layers, manifest } = makeImage([100])
    for (const { descriptor, bytes } of [config, ...layers]) await b.target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    b.registry.fault({ match: /^PUT .*manifests/, act: forwarding({ changeHeaders: (headers) => { headers['docker-content-digest'] = `sha256:${'2'.repeat(64)}` } }) })
    await expect(b.target.pushManifest(manifest.bytes, { mediaType: manifest.descriptor.mediaType, final: true, signal: b.signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))

  it('to a digest is refused before anything is sent', async () => {
    const signal = AbortSignal.timeout(1000)
    await expect(openTarget(`h.example/a@sha256:${'0'.repeat(64)}`, { signal })).rejects.toMatchObject({ code: 'REGISTRY_BAD_REFERENCE' })
  })
})

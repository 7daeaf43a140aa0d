import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { answer, forwarding, startFaultRegistry, type FaultRegistry } from '../../../test/support/fault-registry.ts'
import { makeImage, pushImage, QUICK_RETRY, temporaryDirectory, type TestImage } from '../../../test/support/images.ts'
import { subscribe } from '../../core/diagnostics.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { collect } from '../content.ts'
import { createRangeFetcher, openSource, openTarget, type ImageSource, type RangeFetcher } from '../index.ts'

interface Bench { readonly registry: FaultRegistry; readonly source: ImageSource; readonly fetcher: RangeFetcher; readonly image: TestImage; readonly signal: AbortSignal }

const SIZE = 600_000
const BLOB_GET = /^GET \/v2\/a\/b\/blobs\//

/** A registry with one image, whose only layer has SIZE bytes; what `use` queues happens to the pulls that follow. */
async function bench(use: (bench: Bench) => Promise<void>, retry = QUICK_RETRY): Promise<void> {
  await using directory = await temporaryDirectory()
  await using registry = await startFaultRegistry(directory.path)
  const signal = AbortSignal.timeout(20_000)
  const image = makeImage([SIZE])
  {
    await using target = await openTarget(`${registry.backend.host}/a/b:1`, { signal, plainHttp: true })
    await pushImage(target, image, signal)
  }
  const options = { signal, plainHttp: true, retry, bodyIdleTimeoutMs: 1000, env: {} }
  await using source = await openSource(`${registry.host}/a/b:1`, options)
  await using fetcher = createRangeFetcher({ host: registry.host, repository: 'a/b' }, options)
  await use({ registry, source, fetcher, image, signal })
}

async function pull({ source, image, signal }: Bench): Promise<boolean> {
  const { descriptor, bytes } = image.layers[0]!
  return Buffer.from(await collect(source.openBlob(descriptor, { signal }), SIZE)).equals(bytes)
}

describe('a pull', () => {
  it('resumes by range after a connection that breaks in the middle of a layer', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ cutAfter: 200_000 }) })
    expect(await pull(b)).toBe(true)
    const ranges = b.registry.seen.filter((request) => request.url.includes('/blobs/')).map((request) => request.headers.range)
    expect(ranges[0]).toBe(undefined)
    expect(ranges[1]).toMatch(/^bytes=\d{5,}-599999$/)
  }))

  it('resumes after a body that simply ends early', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ endAfter: 1000 }) })
    expect(await pull(b)).toBe(true)
  }))

  it('skips what it has when the registry ignores ranges', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ cutAfter: 100_000 }) })
    b.registry.fault({ match: BLOB_GET, act: forwarding({ dropRange: true }) })
    expect(await pull(b)).toBe(true)
  }))

  it('goes on for as long as each connection brings something, and gives up when none does', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ cutAfter: 265_000 }), times: 2 })
    expect(await pull(b)).toBe(true)
    expect(b.registry.count(BLOB_GET)).toBe(3)
    b.registry.fault({ match: BLOB_GET, act: forwarding({ cutAfter: 10 }), times: 100 })
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' })
  }, { ...QUICK_RETRY, attempts: 2 }))

  it.each([
    ['changed', (body: Buffer) => { body[1000]! ^= 1; return body }],
    ['longer', (body: Buffer) => Buffer.concat([body, Buffer.from('x')])],
  ])('refuses a %s body at its end', (_, changeBody) => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ changeBody }), times: 9 })
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))

  it('refuses a blob that is shorter than its descriptor says', () => bench(async (b) => {
    const { descriptor } = b.image.layers[0]!
    const wrong = { ...descriptor, size: descriptor.size + 1 }
    await expect(collect(b.source.openBlob(wrong, { signal: b.signal }), SIZE + 1)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))

  it('waits as long as Retry-After asks', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: answer(429, { 'retry-after': '1' }) })
    const started = performance.now()
    expect(await pull(b)).toBe(true)
    expect(performance.now() - started).toBeGreaterThan(900)
  }))

  it('does not wait for a Retry-After of an hour', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: answer(429, { 'retry-after': '3600' }) })
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE', context: { status: 429 } })
  }))

  it('survives 5xx, and names the status when it never ends', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: answer(503), times: 3 })
    expect(await pull(b)).toBe(true)
    b.registry.fault({ match: BLOB_GET, act: answer(502), times: 99 })
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE', context: { status: 502 } })
    expect(b.registry.count(BLOB_GET)).toBe(4 + QUICK_RETRY.attempts)
  }))

  it('notices a connection that falls silent', () => bench(async (b) => {
    b.registry.fault({
      match: BLOB_GET,
      act: ({ response }) => { response.writeHead(200, { 'content-length': SIZE }); response.write('x'.repeat(10)) },
    })
    // what came before the silence was wrong, too, so that the end shows that the rest was asked for
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    expect(b.registry.seen.at(-1)?.headers.range).toBe(`bytes=10-${SIZE - 1}`)
  }))

  it('stops at once when the caller leaves, with the caller\'s reason', () => bench(async (b) => {
    const leaving = new AbortController()
    const reason = new Error('enough')
    const { descriptor } = b.image.layers[0]!
    const reading = async () => {
      for await (const _ of b.source.openBlob(descriptor, { signal: leaving.signal })) leaving.abort(reason)
    }
    await expect(reading()).rejects.toBe(reason)
  }))

  it('ends redirect loops', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: ({ request, response }) => void response.writeHead(307, { location: request.url! }).end(), times: 99 })
    await expect(pull(b)).rejects.toMatchObject({ code: 'REGISTRY_PROTOCOL' })
    expect(b.registry.count(BLOB_GET)).toBeLessThan(10)
  }))

  it('asks by GET where HEAD is refused', () => bench(async (b) => {
    b.registry.fault({ match: /^HEAD /, act: answer(405), times: 9 })
    expect(await b.source.exists(b.image.layers[0]!.descriptor, { signal: b.signal })).toBe(true)
    const absent = { ...b.image.layers[0]!.descriptor, digest: `sha256:${'0'.repeat(64)}` as const }
    expect(await b.source.exists(absent, { signal: b.signal })).toBe(false)
  }))
})

describe('a manifest', () => {
  const MANIFEST = /^GET \/v2\/a\/b\/manifests\//

  it('is looked up once: a tag that moves later does not matter', () => bench(async (b) => {
    const first = await b.source.resolve({ signal: b.signal })
    expect(first.descriptor).toEqual(b.image.manifest.descriptor)
    expect(await b.source.resolve({ signal: b.signal })).toBe(first)
    expect(b.registry.count(MANIFEST)).toBe(1)
  }))

  it.each([
    ['does not hash to the digest that the registry announces', forwarding({ changeBody: (body) => Buffer.concat([body, Buffer.from(' ')]) }), 'REGISTRY_DIGEST_MISMATCH'],
    ['is not JSON', answer(200, { 'content-type': MEDIA_TYPE.ociManifest }, '<html>'), 'REGISTRY_PROTOCOL'],
    ['has the fields of an index and of a manifest', answer(200, {}, '{"schemaVersion":2,"manifests":[],"layers":[]}'), 'REGISTRY_PROTOCOL'],
    ['is served as an index', forwarding({ changeHeaders: (headers) => { headers['content-type'] = MEDIA_TYPE.ociIndex } }), 'REGISTRY_PROTOCOL'],
    ['has no type inside and is served as an index', answer(200, { 'content-type': MEDIA_TYPE.ociIndex }, '{"schemaVersion":2,"config":{},"layers":[]}'), 'REGISTRY_PROTOCOL'],
    ['never ends', ({ response }: { response: import('node:http').ServerResponse }) => {
      const timer = setInterval(() => response.write(Buffer.alloc(1024 * 1024, 32)), 1)
      response.on('close', () => clearInterval(timer))
    }, 'REGISTRY_PROTOCOL'],
  ] as const)('is refused when it %s', (_, act, code) => bench(async (b) => {
    b.registry.fault({ match: MANIFEST, act })
    await expect(b.source.resolve({ signal: b.signal })).rejects.toMatchObject({ code })
  }))

  it('has the type that it claims itself when the server says text/plain', () => bench(async (b) => {
    b.registry.fault({ match: MANIFEST, act: forwarding({ changeHeaders: (headers) => { headers['content-type'] = 'text/plain; charset=utf-8' } }) })
    expect((await b.source.resolve({ signal: b.signal })).descriptor.mediaType).toBe(MEDIA_TYPE.ociManifest)
  }))

  it('that is missing says so at once', () => bench(async (b) => {
    await expect(b.source.fetchManifest(`sha256:${'1'.repeat(64)}`, { signal: b.signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    expect(b.registry.count(MANIFEST)).toBe(1)
  }))
})

describe('a range', () => {
  const digest = (b: Bench) => b.image.layers[0]!.descriptor.digest
  const part = async (b: Bench, offset: number, length: number) => Buffer.from(await b.fetcher.readRange(digest(b), offset, { length, signal: b.signal }))

  it('is exactly the bytes asked for', () => bench(async (b) => {
    expect((await part(b, 1234, 5678)).equals(b.image.layers[0]!.bytes.subarray(1234, 1234 + 5678))).toBe(true)
    expect(await b.fetcher.blobSize(digest(b), { signal: b.signal })).toBe(SIZE)
    expect((await part(b, 0, 0)).length).toBe(0)
  }))

  it('is cut out of a whole body when the server ignores Range', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ dropRange: true }) })
    expect((await part(b, 70_000, 100)).equals(b.image.layers[0]!.bytes.subarray(70_000, 70_100))).toBe(true)
  }))

  it('is not cut out of a whole body when that means to read far', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ dropRange: true }) })
    await expect(part(b, 17 * 1024 * 1024, 100)).rejects.toMatchObject({ code: 'REGISTRY_PROTOCOL' })
  }))

  it('beyond the blob is a mismatch, not fewer bytes', () => bench(async (b) => {
    await expect(part(b, SIZE, 1)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    await expect(part(b, SIZE - 1, 2)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))

  it('with another Content-Range than asked for is refused', () => bench(async (b) => {
    b.registry.fault({ match: BLOB_GET, act: forwarding({ changeHeaders: (headers) => { headers['content-range'] = 'bytes 0-99/600000' } }) })
    await expect(part(b, 100, 100)).rejects.toMatchObject({ code: 'REGISTRY_PROTOCOL' })
  }))

  it('is fetched from the host that replaces the one of a redirect', () => bench(async (b) => {
    const options = { plainHttp: true, retry: QUICK_RETRY, env: {}, blobRedirect: { scheme: 'http', host: b.registry.backend.host } } as const
    await using fetcher = createRangeFetcher({ host: b.registry.host, repository: 'a/b' }, options)
    b.registry.fault({ match: BLOB_GET, act: ({ request, response }) => void response.writeHead(307, { location: `https://internal.invalid${request.url}` }).end() })
    expect(Buffer.from(await fetcher.readRange(digest(b), 5, { length: 10, signal: b.signal })).equals(b.image.layers[0]!.bytes.subarray(5, 15))).toBe(true)
  }))

  it('remembers where a blob was redirected to, without credentials, and forgets it when refused there', () => bench(async (b) => {
    const cdn: { auth: (string | undefined)[]; refuse: number } = { auth: [], refuse: 0 }
    const server = createServer((request, response) => {
      cdn.auth.push(request.headers.authorization)
      if (cdn.refuse-- > 0) { response.writeHead(403).end(); return }
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '')!
      response.writeHead(206, { 'content-range': `bytes ${from}-${to}/${SIZE}` }).end(b.image.layers[0]!.bytes.subarray(Number(from), Number(to) + 1))
    })
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
    try {
      const location = `http://127.0.0.1:${(server.address() as AddressInfo).port}/x?X-Signature=secret`
      b.registry.fault({ match: BLOB_GET, act: answer(307, { location }), times: 2 })
      const events: string[] = []
      const stop = subscribe('registry:request:done', (event) => events.push(event.url))
      expect((await part(b, 10, 10)).equals(b.image.layers[0]!.bytes.subarray(10, 20))).toBe(true)
      expect((await part(b, 20, 10)).length).toBe(10)
      expect(b.registry.count(BLOB_GET)).toBe(1) // the second went straight to the CDN
      cdn.refuse = 1
      expect((await part(b, 30, 10)).length).toBe(10)
      expect(b.registry.count(BLOB_GET)).toBe(2)
      expect(cdn.auth.every((header) => header === undefined)).toBe(true)
      stop()
      expect(events.some((url) => url.includes('X-Signature=…'))).toBe(true)
      expect(events.join()).not.toContain('secret')
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }))
})

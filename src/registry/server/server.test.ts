import { randomBytes } from 'node:crypto'
import { readdir, writeFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { blobOf, contentOf, makeImage, pushImage, temporaryDirectory } from '../../../test/support/images.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { openTarget, serveLayout, type LayoutServer, type ServeOptions } from '../index.ts'

interface Answer { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer }
type Ask = (method: string, path: string, options?: { body?: Buffer | string; headers?: Record<string, string> }) => Promise<Answer>

interface Bench { readonly server: LayoutServer; readonly directory: string; readonly ask: Ask; readonly signal: AbortSignal }

async function bench(use: (bench: Bench) => Promise<void>, options: ServeOptions = {}): Promise<void> {
  await using directory = await temporaryDirectory()
  const layout = path.join(directory.path, 'Lay_Out')
  await using server = await serveLayout(layout, options)
  const ask: Ask = (method, target, { body, headers = {} } = {}) => new Promise((resolve, reject) => {
    const outgoing = httpRequest({ host: '127.0.0.1', port: server.port, method, path: target, headers: { ...headers, ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }) } }, (response) => {
      const parts: Buffer[] = []
      response.on('data', (chunk: Buffer) => parts.push(chunk)).on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) })).on('error', reject)
    })
    outgoing.on('error', reject).end(body)
  })
  await use({ server, directory: layout, ask, signal: AbortSignal.timeout(20_000) })
}

async function push({ server, signal }: Bench, name: string, sizes: readonly number[] = [1000]): Promise<ReturnType<typeof makeImage>> {
  const image = makeImage(sizes)
  await using target = await openTarget(`${server.host}/${name}`, { signal, plainHttp: true, env: {} })
  await pushImage(target, image, signal)
  return image
}

async function upload({ ask }: Bench, bytes: Buffer): Promise<string> {
  const { descriptor } = blobOf(bytes, 'x/y')
  expect((await ask('POST', `/v2/a/blobs/uploads/?digest=${descriptor.digest}`, { body: bytes })).status).toBe(201)
  return descriptor.digest
}

describe('the embedded registry', () => {
  it('answers ranges like a web server', () => bench(async (b) => {
    const bytes = randomBytes(1000)
    const blob = `/v2/a/blobs/${await upload(b, bytes)}`
    for (const [range, status, from, to] of [
      ['bytes=0-9', 206, 0, 10], ['bytes=990-', 206, 990, 1000], ['bytes=-10', 206, 990, 1000], ['bytes=0-99999', 206, 0, 1000], ['bytes=-99999', 206, 0, 1000],
      ['bytes=5-4', 200, 0, 1000], ['bytes=0-1,3-4', 200, 0, 1000], ['items=0-1', 200, 0, 1000], ['bytes=-', 200, 0, 1000], [undefined, 200, 0, 1000],
    ] as const) {
      const got = await b.ask('GET', blob, { headers: range === undefined ? {} : { range } })
      expect([range, got.status, got.body.equals(bytes.subarray(from, to))]).toEqual([range, status, true])
      if (status === 206) expect(got.headers['content-range']).toBe(`bytes ${from}-${to - 1}/1000`)
    }
    expect(await b.ask('GET', blob, { headers: { range: 'bytes=1000-' } })).toMatchObject({ status: 416, headers: { 'content-range': 'bytes */1000' } })
    expect(await b.ask('HEAD', blob)).toMatchObject({ status: 200, headers: { 'content-length': '1000', 'accept-ranges': 'bytes' }, body: Buffer.alloc(0) })
  }))

  it('counts requests and bytes, also of a client that leaves early', () => bench(async (b) => {
    const blob = `/v2/a/blobs/${await upload(b, randomBytes(8_000_000))}`
    await b.ask('GET', blob, { headers: { range: 'bytes=10-29' } })
    await new Promise<void>((resolve) => {
      const outgoing = httpRequest({ host: '127.0.0.1', port: b.server.port, path: blob }, (response) => { response.once('data', () => { outgoing.destroy(); resolve() }) })
      outgoing.on('error', () => {}).end()
    })
    await new Promise((resolve) => { setTimeout(resolve, 100) })
    const gets = b.server.log.filter((entry) => entry.method === 'GET')
    expect(gets[0]).toMatchObject({ path: blob, status: 206, bytes: 20, range: 'bytes=10-29' })
    expect(gets[1]!.bytes).toBeGreaterThan(0)
    expect(gets[1]!.bytes).toBeLessThan(8_000_000)
  }))

  it.each([
    '/v2/../../etc/passwd', '/v2/a/blobs/../../../etc/passwd', '/v2/a/blobs/sha256:..%2f..%2fetc', '/v2/a/blobs/uploads/../../x', '/v2/a/manifests/..',
    '/v2/A/manifests/x', '/v2/a//b/tags/list', '/v2/a/blobs/sha256:abc', '/v2/a/blobs/md5:00000000000000000000000000000000', '/v2/a/manifests/.hidden',
    '/v2/%2e%2e/manifests/x', '/v2/a/blobs/uploads/not-a-session', '/', '/v2/a', '/v1/x', '//', `/v2/${'a'.repeat(300)}/tags/list`,
  ])('knows no address %s', (target) => bench(async (b) => {
    for (const method of ['GET', 'PUT', 'PATCH', 'DELETE']) {
      const { status } = await b.ask(method, target, { body: method === 'GET' ? '' : 'x' })
      expect([400, 404, 405]).toContain(status)
    }
    expect((await readdir(b.directory)).sort()).toEqual(['blobs', 'index.json', 'oci-layout'])
  }))

  it('keeps several repositories in one layout, by the names repository:tag', () => bench(async (b) => {
    const one = await push(b, 'app:1')
    const two = await push(b, 'group/app:1')
    await push(b, 'app:2')
    expect((await b.ask('GET', '/v2/app/manifests/1')).headers['docker-content-digest']).toBe(one.manifest.descriptor.digest)
    expect((await b.ask('GET', '/v2/group/app/manifests/1')).headers['docker-content-digest']).toBe(two.manifest.descriptor.digest)
    expect(JSON.parse((await b.ask('GET', '/v2/_catalog')).body.toString())).toEqual({ repositories: ['app', 'group/app'] })
    expect(JSON.parse((await b.ask('GET', '/v2/app/tags/list')).body.toString())).toEqual({ name: 'app', tags: ['1', '2'] })
    const page = await b.ask('GET', '/v2/app/tags/list?n=1')
    expect(page.headers['link']).toBe('</v2/app/tags/list?n=1&last=1>; rel="next"')
    expect(JSON.parse((await b.ask('GET', '/v2/app/tags/list?n=1&last=1')).body.toString()).tags).toEqual(['2'])
    expect((await b.ask('GET', '/v2/none/tags/list')).status).toBe(404)
  }))

  it('shows images with a bare tag in the repository of the directory\'s name', () => bench(async (b) => {
    const image = makeImage([100])
    await using target = await openTarget(`oci:${b.directory}:v1`, { signal: b.signal })
    await pushImage(target, image, b.signal)
    expect(b.server.repository).toBe('lay-out')
    expect((await b.ask('GET', '/v2/lay-out/manifests/v1')).body.equals(image.manifest.bytes)).toBe(true)
    expect((await b.ask('GET', '/v2/other/manifests/v1')).status).toBe(404)
  }))

  it('takes a manifest only when it has everything that it names, and only as what it is', () => bench(async (b) => {
    const image = makeImage([100])
    const put = (reference: string, body: Buffer | string, type: string) => b.ask('PUT', `/v2/a/manifests/${reference}`, { body, headers: { 'content-type': type } })
    const { bytes, descriptor: { mediaType } } = image.manifest
    expect(await put('1', bytes, mediaType)).toMatchObject({ status: 400, body: expect.objectContaining({}) })
    for (const { bytes: content } of [image.config, ...image.layers]) await upload(b, content)
    expect((await put('1', bytes, MEDIA_TYPE.ociIndex)).status).toBe(400)
    expect((await put('1', 'not json', mediaType)).status).toBe(400)
    expect((await put(`sha256:${'0'.repeat(64)}`, bytes, mediaType)).status).toBe(400)
    expect((await put('1', Buffer.alloc(4 * 1024 * 1024 + 1, 32), mediaType)).status).toBe(413)
    expect((await b.ask('GET', '/v2/a/manifests/1')).status).toBe(404)
    expect((await put('1', bytes, mediaType)).status).toBe(201)
    expect(await b.ask('GET', '/v2/a/manifests/1')).toMatchObject({ status: 200, headers: { 'content-type': mediaType } })
  }))

  it('deletes a tag alone, and by digest the manifest', () => bench(async (b) => {
    const { manifest } = await push(b, 'a:1')
    await push(b, 'a:2')
    expect((await b.ask('DELETE', '/v2/a/manifests/2')).status).toBe(202)
    expect((await b.ask('GET', '/v2/a/manifests/2')).status).toBe(404)
    expect((await b.ask('DELETE', `/v2/a/manifests/${manifest.descriptor.digest}`)).status).toBe(202)
    for (const reference of ['1', manifest.descriptor.digest]) expect((await b.ask('GET', `/v2/a/manifests/${reference}`)).status).toBe(404)
    expect((await b.ask('DELETE', '/v2/a/manifests/1')).status).toBe(404)
  }))

  it('lists referrers, tagged or not', () => bench(async (b) => {
    const { manifest, config } = await push(b, 'a:1')
    const referrer = (artifactType: string) => Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, artifactType, config: config.descriptor, layers: [], subject: manifest.descriptor }))
    for (const [type, reference] of [['x/one', 'tagged'], ['x/two', blobOf(referrer('x/two'), '').descriptor.digest]] as const) {
      const put = await b.ask('PUT', `/v2/a/manifests/${reference}`, { body: referrer(type), headers: { 'content-type': MEDIA_TYPE.ociManifest } })
      expect(put).toMatchObject({ status: 201, headers: { 'oci-subject': manifest.descriptor.digest } })
    }
    const list = async (query = '') => b.ask('GET', `/v2/a/referrers/${manifest.descriptor.digest}${query}`)
    expect(JSON.parse((await list()).body.toString()).manifests.map((item: { artifactType: string }) => item.artifactType)).toEqual(['x/one', 'x/two'])
    const filtered = await list('?artifactType=x%2Ftwo')
    expect(filtered.headers['oci-filters-applied']).toBe('artifactType')
    expect(JSON.parse(filtered.body.toString()).manifests.length).toBe(1)
    expect(JSON.parse((await b.ask('GET', `/v2/a/referrers/sha256:${'0'.repeat(64)}`)).body.toString()).manifests).toEqual([])
  }))
})

describe('uploads', () => {
  const start = async (b: Bench) => (await b.ask('POST', '/v2/a/blobs/uploads/')).headers.location!

  it('come in pieces, whose place is checked', () => bench(async (b) => {
    const { descriptor, bytes } = blobOf(randomBytes(1000), 'x/y')
    const session = await start(b)
    const piece = (from: number, to: number) => b.ask('PATCH', session, { body: bytes.subarray(from, to), headers: { 'content-range': `${from}-${to - 1}` } })
    expect(await piece(0, 400)).toMatchObject({ status: 202, headers: { range: '0-399' } })
    expect(await piece(500, 1000)).toMatchObject({ status: 416, headers: { range: '0-399' } })
    expect(await b.ask('GET', session)).toMatchObject({ status: 204, headers: { range: '0-399' } })
    expect((await piece(400, 900)).status).toBe(202)
    expect((await b.ask('PUT', `${session}?digest=${descriptor.digest}`, { body: bytes.subarray(900) })).status).toBe(201)
    expect((await b.ask('GET', `/v2/a/blobs/${descriptor.digest}`)).body.equals(bytes)).toBe(true)
    expect((await b.ask('GET', session)).status).toBe(404)
  }))

  it('of another digest never appear, and leave nothing', () => bench(async (b) => {
    const { descriptor } = blobOf(Buffer.from('one'), 'x/y')
    const put = await b.ask('PUT', `${await start(b)}?digest=${descriptor.digest}`, { body: 'two' })
    expect(put).toMatchObject({ status: 400 })
    expect(put.body.toString()).toContain('DIGEST_INVALID')
    expect((await b.ask('HEAD', `/v2/a/blobs/${descriptor.digest}`)).status).toBe(404)
    expect((await readdir(b.directory)).filter((name) => name.startsWith('.'))).toEqual([])
    expect((await b.ask('PUT', await start(b), { body: 'x' })).status).toBe(400)
  }))

  it('take sha512 digests', () => bench(async (b) => {
    const { createHash } = await import('node:crypto')
    const digest = `sha512:${createHash('sha512').update('hello').digest('hex')}`
    expect((await b.ask('PUT', `${await start(b)}?digest=${digest}`, { body: 'hello' })).status).toBe(201)
    expect((await b.ask('GET', `/v2/a/blobs/${digest}`)).body.toString()).toBe('hello')
  }))

  it('are bounded in size and number', () => bench(async (b) => {
    const session = await start(b)
    expect((await b.ask('PATCH', session, { body: Buffer.alloc(1001) })).status).toBe(413)
    expect((await b.ask('PATCH', session, { body: Buffer.alloc(1000) })).status).toBe(202)
    expect((await b.ask('PATCH', session, { body: Buffer.alloc(1) })).status).toBe(413)
    const statuses = await Promise.all(Array.from({ length: 70 }, () => b.ask('POST', '/v2/a/blobs/uploads/')))
    expect(statuses.filter(({ status }) => status === 429).length).toBe(7)
    expect((await b.ask('DELETE', session)).status).toBe(204)
    expect((await b.ask('POST', '/v2/a/blobs/uploads/')).status).toBe(202)
  }, { maxBlobBytes: 1000 }))

  it('mount what the layout has, and begin where it has not', () => bench(async (b) => {
    const digest = await upload(b, Buffer.from('x'))
    expect((await b.ask('POST', `/v2/b/blobs/uploads/?mount=${digest}&from=a`)).status).toBe(201)
    expect((await b.ask('POST', `/v2/b/blobs/uploads/?mount=sha256:${'0'.repeat(64)}&from=a`)).status).toBe(202)
  }))

  it('that are unfinished are gone after close', async () => {
    await using directory = await temporaryDirectory()
    const server = await serveLayout(directory.path)
    await new Promise<void>((resolve) => { httpRequest({ host: '127.0.0.1', port: server.port, method: 'POST', path: '/v2/a/blobs/uploads/' }, (response) => { response.resume().on('end', resolve) }).end() })
    expect((await readdir(directory.path)).filter((name) => name.startsWith('.')).length).toBe(1)
    await server.close()
    expect((await readdir(directory.path)).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('of one session do not mix', () => bench(async (b) => {
    const session = await start(b)
    const slow = httpRequest({ host: '127.0.0.1', port: b.server.port, method: 'PATCH', path: session, headers: { 'content-length': 10 } })
    slow.on('error', () => {})
    slow.write('12345')
    await new Promise((resolve) => { setTimeout(resolve, 50) })
    expect((await b.ask('PATCH', session, { body: 'xxxxx' })).status).toBe(409)
    slow.destroy()
  }))
})

describe('what the embedded registry refuses', () => {
  it('is everything that writes when it is read-only', () => bench(async (b) => {
    expect((await b.ask('POST', '/v2/a/blobs/uploads/')).status).toBe(405)
    expect((await b.ask('GET', '/v2/')).status).toBe(200)
  }, { readOnly: true, create: true }))

  it('is what web pages send', () => bench(async (b) => {
    expect((await b.ask('POST', '/v2/a/blobs/uploads/', { headers: { origin: 'https://evil.example' } })).status).toBe(403)
  }))

  it('is an address that is taken, by name', () => bench(async (b) => {
    await expect(serveLayout(b.directory, { port: b.server.port })).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' })
  }))

  it('is to serve a damaged manifest', () => bench(async (b) => {
    const { manifest } = await push(b, 'a:1')
    await writeFile(path.join(b.directory, 'blobs/sha256', manifest.descriptor.digest.slice(7)), '{}')
    expect((await b.ask('GET', '/v2/a/manifests/1')).status).toBeGreaterThanOrEqual(400)
  }))
})

describe('pushes at once', () => {
  it('all arrive, each image under its name', () => bench(async (b) => {
    await Promise.all(Array.from({ length: 8 }, (_, index) => push(b, `app:${index}`)))
    expect(JSON.parse((await b.ask('GET', '/v2/app/tags/list')).body.toString()).tags.length).toBe(8)
    const { descriptor, bytes } = blobOf(randomBytes(100_000), 'x/y')
    await Promise.all(Array.from({ length: 4 }, async () => {
      await using target = await openTarget(`${b.server.host}/a:1`, { signal: b.signal, plainHttp: true, env: {} })
      await target.pushBlob(descriptor, contentOf(bytes), { signal: b.signal })
    }))
  }))
})

// Registries that answer anything at all: every call ends soon, with its bytes or a coded error.

import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { contentOf } from '../../../test/support/images.ts'
import { isCoded } from '../../core/errors.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { collect } from '../content.ts'
import { createRangeFetcher, digestOf, openSource, openTarget } from '../index.ts'

const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
/** Unless scripts/fuzz.sh says how long: 400 dialogues. */
const SECONDS = process.env['FUZZ_SECONDS'] === undefined ? undefined : Number(process.env['FUZZ_SECONDS'])
const CONTENT = Buffer.alloc(5000, 'content')
const DESCRIPTOR = { mediaType: 'x/y', digest: digestOf(CONTENT), size: CONTENT.length } as const
const MANIFEST = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: DESCRIPTOR, layers: [] }))

interface Reply { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: Buffer; readonly how: 'end' | 'cut' | 'reset' }

const value = fc.oneof(
  fc.constantFrom('0', '1', '5000', '-1', '99999999999999999999', '0-0', '0-4999', '2-1', 'bytes 0-4999/5000', 'bytes 10-20/5000', 'bytes */*', '/', '//', 'http://127.0.0.1:1/x', 'https://[', 'ftp://x', '/v2/a/blobs/uploads/x?y=%zz',
    'Basic', 'Bearer realm="http://127.0.0.1:1/"', 'Bearer realm="::"', 'Bearer realm="/relative"', MEDIA_TYPE.ociIndex, MEDIA_TYPE.ociManifest, 'text/html', DESCRIPTOR.digest, `sha256:${'0'.repeat(64)}`, 'sha256:x'),
  fc.string({ unit: 'grapheme-ascii', maxLength: 40 }).map((text) => text.replace(/[^\x20-\x7e]/g, '')))
const reply: fc.Arbitrary<Reply> = fc.record({
  status: fc.constantFrom(200, 200, 200, 201, 202, 202, 204, 206, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 409, 416, 429, 500, 502, 503),
  headers: fc.dictionary(fc.constantFrom('location', 'range', 'content-range', 'content-type', 'www-authenticate', 'docker-content-digest', 'retry-after', 'link', 'docker-upload-uuid'), value, { maxKeys: 5 }),
  body: fc.oneof(fc.constantFrom(CONTENT, MANIFEST, CONTENT.subarray(7), Buffer.concat([CONTENT, CONTENT]), Buffer.from('{"errors":[{"code":1,"message":null},null]}'), Buffer.from('{"manifests":[]}'), Buffer.alloc(0)), fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes))),
  how: fc.constantFrom('end', 'end', 'end', 'cut', 'reset'),
})

describe('a registry that answers anything', () => {
  let server: Server
  let replies: Reply[] = []
  let turn = 0

  beforeAll(async () => {
    server = createServer((request, response) => {
      request.on('error', () => {}).resume()
      const { status, headers, body, how } = replies[turn++ % replies.length]!
      if (how === 'reset') { response.destroy(); return }
      const retryAfter = headers['retry-after'] === undefined ? {} : { 'retry-after': '0' } // waiting is tested elsewhere
      response.writeHead(status, { ...headers, ...retryAfter, ...(how === 'cut' ? { 'content-length': body.length + 10 } : {}) })
      if (how === 'end') response.end(body)
      else { response.write(body); setTimeout(() => response.destroy(), 2) }
    })
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  })
  afterAll(() => { server.closeAllConnections(); server.close() })

  it('gets a coded error, or gave the right bytes', async () => {
    const kinds = new Map<string, number>()
    await fc.assert(fc.asyncProperty(fc.array(reply, { minLength: 1, maxLength: 6 }), fc.nat(4), async (script, what) => {
      replies = script
      turn = 0
      const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
      const signal = AbortSignal.timeout(10_000)
      const options = { signal, plainHttp: true, env: {}, retry: { attempts: 3, baseMs: 0, maxMs: 1 }, pieceSize: 1000, bodyIdleTimeoutMs: 500 }
      await using source = await openSource(`${host}/a:1`, options)
      await using target = await openTarget(`${host}/a:1`, options)
      await using fetcher = createRangeFetcher({ host, repository: 'a' }, options)
      const calls = [
        async () => { const { bytes, descriptor } = await source.resolve({ signal }); expect(digestOf(bytes)).toBe(descriptor.digest) },
        async () => { expect(Buffer.from(await collect(source.openBlob(DESCRIPTOR, { signal }), 1e6)).equals(CONTENT)).toBe(true) },
        async () => { expect((await fetcher.readRange(DESCRIPTOR.digest, 100, { length: 200, signal })).length).toBe(200) },
        async () => { await target.pushBlob(DESCRIPTOR, contentOf(CONTENT), { signal }) },
        async () => { expect(Number.isSafeInteger(await fetcher.blobSize(DESCRIPTOR.digest, { signal }))).toBe(true) },
      ]
      const outcome = await calls[what]!().then(() => 'fine', (error: unknown) => {
        if (!isCoded(error)) throw error
        return error.code
      })
      kinds.set(outcome, (kinds.get(outcome) ?? 0) + 1)
    }), SECONDS === undefined ? { seed: SEED, numRuns: 400 } : { seed: SEED, numRuns: 1e6, interruptAfterTimeLimit: SECONDS * 1000 })
    process.stdout.write(`registry answers: FUZZ_SEED=${SEED}, ${[...kinds].map(([kind, count]) => `${kind} ${count}`).join(', ')}\n`)
    // the generator reaches what it is for
    for (const kind of ['fine', 'REGISTRY_UNREACHABLE', 'REGISTRY_PROTOCOL', 'REGISTRY_NOT_FOUND', 'REGISTRY_DIGEST_MISMATCH', 'REGISTRY_DENIED']) expect([kind, kinds.get(kind) ?? 0]).toEqual([kind, expect.toSatisfy((count: number) => count >= 5)])
  }, 60_000 + (SECONDS ?? 0) * 1000)
})

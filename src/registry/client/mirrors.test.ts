import { mkdir, writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../../../test/support/images.ts'
import { parseConfig, type RegistryConfig } from '../../storage/index.ts'
import { rangeFetcherOf } from '../../cli/nydusd/network.ts'
import { readHosts } from './hosts-file.ts'

const DIGEST = `sha256:${'a'.repeat(64)}` as const
const { signal } = new AbortController()

interface Seen { readonly url: string; readonly headers: IncomingHttpHeaders }
interface Server extends AsyncDisposable { readonly host: string; readonly seen: Seen[]; answer: 'bytes' | number | 'hang' }

/** Answers each range with its own name. */
async function start(name: string): Promise<Server> {
  const state: { answer: Server['answer']; seen: Seen[] } = { answer: 'bytes', seen: [] }
  const server = createServer((request, response) => {
    state.seen.push({ url: request.url ?? '', headers: request.headers })
    if (state.answer === 'hang') return
    if (typeof state.answer === 'number') response.writeHead(state.answer).end()
    else response.writeHead(206, { 'content-range': `bytes 0-2/100`, 'content-length': 3 }).end(name)
  })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  return Object.assign(state, {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() { server.closeAllConnections(); await new Promise((resolve) => { server.close(resolve) }) },
  })
}

async function fetcherOf(registry: object) {
  const { backend } = await parseConfig(JSON.stringify({ version: 2, backend: { type: 'registry', registry: { scheme: 'http', repo: 'a/b', auth: Buffer.from('me:hunter2').toString('base64'), ...registry } } }))
  return await rangeFetcherOf(backend as RegistryConfig)
}

async function ask(fetcher: Awaited<ReturnType<typeof fetcherOf>>, until: AbortSignal = signal): Promise<string> {
  return Buffer.from(await fetcher.readRange(DIGEST, 0, { length: 3, signal: until })).toString()
}

describe('mirrors of a registry', () => {
  it('are asked in order, the registry last, and left out for a while after a failure', async () => {
    await using first = await start('one')
    await using second = await start('two')
    await using origin = await start('own')
    await using fetcher = await fetcherOf({ host: origin.host, mirrors: [{ host: `http://${first.host}`, headers: { 'X-Key': 'k' } }, { host: `http://${second.host}` }] })
    expect(await ask(fetcher)).toBe('one')
    first.answer = 404
    expect(await ask(fetcher)).toBe('two')
    first.answer = 500
    second.answer = 403
    expect(await ask(fetcher)).toBe('own')
    const counts = [first.seen.length, second.seen.length]
    first.answer = second.answer = 'bytes'
    expect(await ask(fetcher)).toBe('own')
    expect([first.seen.length, second.seen.length]).toEqual(counts)
    expect(first.seen[0]).toMatchObject({ url: `/v2/a/b/blobs/${DIGEST}`, headers: { 'x-key': 'k' } })
    expect([...second.seen, ...origin.seen].filter(({ headers }) => headers['x-key'] !== undefined)).toEqual([])
  })

  it('that send wrong bytes are left out too, when somebody says so', async () => {
    await using mirror = await start('one')
    await using origin = await start('own')
    await using fetcher = await fetcherOf({ host: origin.host, mirrors: [{ host: `http://${mirror.host}` }] })
    expect(await ask(fetcher)).toBe('one')
    expect(Buffer.from(await fetcher.readRange(DIGEST, 0, { length: 3, afterWrong: true, signal })).toString()).toBe('own')
    expect(await ask(fetcher)).toBe('own')
    expect(mirror.seen.length).toBe(1)
  })

  it('that hang cost one attempt', async () => {
    await using mirror = await start('one')
    await using origin = await start('own')
    await using fetcher = await fetcherOf({ host: origin.host, mirrors: [{ host: `http://${mirror.host}` }] })
    mirror.answer = 'hang'
    const late = new AbortController()
    const { CodedError } = await import('../../core/errors.ts')
    setTimeout(() => late.abort(new CodedError('STORAGE_UNREACHABLE', 'late')), 200)
    await expect(ask(fetcher, late.signal)).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(await ask(fetcher)).toBe('own')
  })

  it('do not get the registry\'s password, unless they are to', async () => {
    await using origin = await start('own')
    for (const through of [false, true]) {
      const seen: (string | undefined)[] = []
      const server = createServer((request, response) => {
        seen.push(request.headers.authorization)
        response.writeHead(request.headers.authorization === undefined ? 401 : 206, request.headers.authorization === undefined ? { 'www-authenticate': 'Basic realm="x"' } : { 'content-range': 'bytes 0-2/100' }).end('one')
      })
      await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
      try {
        await using fetcher = await fetcherOf({ host: origin.host, mirrors: [{ host: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, auth_through: through }] })
        expect(await ask(fetcher)).toBe(through ? 'one' : 'own')
        expect(seen.some((header) => header !== undefined)).toBe(through)
      } finally {
        server.closeAllConnections()
        server.close()
      }
    }
  })

  it('come from containerd\'s hosts.toml', async () => {
    await using directory = await temporaryDirectory()
    await using push = await start('psh')
    await using mirror = await start('one')
    await using origin = await start('own')
    const folder = path.join(directory.path, origin.host.replace(/:(\d+)$/, '_$1_'))
    await mkdir(folder)
    await writeFile(path.join(folder, 'hosts.toml'), `server = "http://${origin.host}"
[host."http://${push.host}"]
  capabilities = ["push"]
[host."http://${mirror.host}/proxy/v2"]
  capabilities = ["pull", "resolve"]
  override_path = true
  ca = "ca.pem"
  [host."http://${mirror.host}/proxy/v2".header]
    x-custom = ["a", "b"]
`)
    const hosts = await readHosts(directory.path, origin.host)
    expect(hosts?.map(({ url, caFiles }) => [url.host, caFiles])).toEqual([[mirror.host, [path.join(folder, 'ca.pem')]], [origin.host, []]])
    await using fetcher = await fetcherOf({ host: origin.host, hosts_dir: directory.path })
    expect(await ask(fetcher)).toBe('one')
    expect(mirror.seen[0]).toMatchObject({ url: `/proxy/v2/a/b/blobs/${DIGEST}?ns=${encodeURIComponent(origin.host)}`, headers: { 'x-custom': 'a, b' } })
    mirror.answer = 503
    expect(await ask(fetcher)).toBe('own')
    expect(origin.seen[0]!.url).toBe(`/v2/a/b/blobs/${DIGEST}`)
    expect(push.seen).toEqual([])
  })

  it('of hosts.toml: what there is none of, and what is damaged', async () => {
    await using directory = await temporaryDirectory()
    expect(await readHosts(directory.path, 'r.example')).toBeUndefined()
    await mkdir(path.join(directory.path, '_default'))
    await writeFile(path.join(directory.path, '_default/hosts.toml'), '[host."https://m.example"]\n')
    expect((await readHosts(directory.path, 'r.example'))?.map(({ url }) => url.href)).toEqual(['https://m.example/', 'https://r.example/'])
    for (const text of ['[', '[host."ftp://x"]\n', 'server = "http://"\n']) {
      await writeFile(path.join(directory.path, '_default/hosts.toml'), text)
      await expect(readHosts(directory.path, 'r.example')).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    }
  })
})

import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { ProxyChoice } from './proxy.ts'
import { Transport } from './transport.ts'

const portOf = (server: Server): number => (server.address() as AddressInfo).port
const listen = (server: Server, port = 0): Promise<void> => new Promise((resolve) => { server.listen(port, '127.0.0.1', resolve) })

interface Bench {
  readonly transport: Transport
  readonly origin: URL
  /** Requests that came through the proxy, and all that reached the origin. */
  readonly proxied: IncomingMessage[]
  readonly served: IncomingMessage[]
  /** What the proxy does instead of passing on. */
  act: ((request: IncomingMessage, answer: import('node:http').ServerResponse) => boolean) | undefined
  stopProxy(): Promise<void>
  startProxy(): Promise<void>
  get(options?: { signal?: AbortSignal; prefetch?: boolean; url?: URL; isDirect?: boolean }): Promise<{ status: number; body: string }>
}

async function bench(choice: Partial<ProxyChoice>, use: (bench: Bench) => Promise<void>): Promise<void> {
  const [proxied, served]: [IncomingMessage[], IncomingMessage[]] = [[], []]
  const origin = createServer((request, response) => { served.push(request); response.end('bytes') })
  const proxy = createServer((request, response) => {
    proxied.push(request)
    if (bench.act?.(request, response)) return
    const url = new URL(request.url ?? '')
    httpRequest({ host: '127.0.0.1', port: portOf(origin), path: url.pathname, headers: request.headers }, (answer) => { response.writeHead(answer.statusCode ?? 500); answer.pipe(response) }).end()
  })
  await Promise.all([listen(origin), listen(proxy)])
  const port = portOf(proxy)
  await using transport = new Transport({
    caFiles: [], certificateDirectories: [], insecure: false, env: {},
    proxy: { url: `http://127.0.0.1:${port}`, pingUrl: undefined, fallback: true, checkIntervalMs: 300, checkPauseMs: 60_000, useHttp: false, ...choice },
  })
  const bench: Bench = {
    transport, proxied, served, act: undefined, origin: new URL(`http://127.0.0.1:${portOf(origin)}/v2/a/blobs/x`),
    async stopProxy() { proxy.closeAllConnections(); await new Promise((resolve) => { proxy.close(resolve) }) },
    startProxy: () => listen(proxy, port),
    async get({ signal = AbortSignal.timeout(10_000), prefetch = false, url = bench.origin, isDirect = false } = {}) {
      const response = await transport.request({ method: 'GET', url, headers: { range: 'bytes=0-4' }, prefetch, isDirect, signal })
      return { status: response.status, body: Buffer.from(await response.bytes(100)).toString() }
    },
  }
  try {
    await use(bench)
  } finally {
    for (const server of [origin, proxy]) { server.closeAllConnections(); server.close() }
  }
}

const good = { status: 200, body: 'bytes' }

describe('a proxy of the configuration', () => {
  it('sees requests whole, and what Dragonfly wants to know of them', () => bench({}, async (b) => {
    expect(await b.get()).toEqual(good)
    expect(await b.get({ prefetch: true })).toEqual(good)
    expect(b.proxied.map(({ url }) => url)).toEqual([b.origin.href, b.origin.href])
    expect(b.proxied.map(({ headers }) => [headers['x-dragonfly-priority'], headers['x-dragonfly-use-p2p'], headers.range])).toEqual([['6', 'true', 'bytes=0-4'], ['3', 'true', 'bytes=0-4']])
    expect(await b.get({ isDirect: true })).toEqual(good)
    expect([b.proxied.length, b.served.length]).toEqual([2, 3])
  }))

  it('is asked for http:// where that is wanted', () => bench({ useHttp: true }, async (b) => {
    expect(await b.get({ url: new URL('https://registry.invalid/v2/a/blobs/x') })).toEqual(good)
    expect(b.proxied[0]!.url).toBe('http://registry.invalid/v2/a/blobs/x')
  }))

  it('that dies is left out, and used again once it is back', () => bench({}, async (b) => {
    await b.stopProxy()
    expect(await b.get()).toEqual(good)
    await b.startProxy()
    expect(await b.get()).toEqual(good)
    expect(b.proxied.length).toBe(0) // not before its pause is over
    await new Promise((resolve) => { setTimeout(resolve, 400) })
    expect(await b.get()).toEqual(good)
    expect(b.proxied.length).toBe(1)
  }))

  it('that hangs is left out of the next attempt', () => bench({ checkIntervalMs: 60_000 }, async (b) => {
    b.act = () => true
    const late = new AbortController()
    const { CodedError } = await import('../../core/errors.ts')
    setTimeout(() => late.abort(new CodedError('STORAGE_UNREACHABLE', 'late')), 200)
    await expect(b.get({ signal: late.signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(await b.get()).toEqual(good)
    expect(b.proxied.length).toBe(1)
  }))

  it('that fails or refuses by itself is passed by, but what the server says is believed', () => bench({ checkIntervalMs: 0 }, async (b) => {
    for (const [status, headers] of [[502, {}], [403, { 'x-dragonfly-error-type': 'proxy' }], [429, { 'x-dragonfly-error-type': 'proxy' }]] as const) {
      b.act = (_, response) => { response.writeHead(status, headers).end(); return true }
      expect(await b.get()).toEqual(good)
    }
    b.act = (_, response) => { response.writeHead(403).end(); return true }
    expect(await b.get()).toEqual({ status: 403, body: '' })
    expect([b.proxied.length, b.served.length]).toEqual([4, 3])
  }))

  it('is the only way without fallback', () => bench({ fallback: false }, async (b) => {
    await b.stopProxy()
    await expect(b.get()).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' })
    expect(b.served.length).toBe(0)
  }))

  it('is asked for its health while it is used, and only then', async () => {
    const health = { pings: 0, isWell: true }
    const pinged = createServer((_, response) => { health.pings++; response.writeHead(health.isWell ? 200 : 503).end() })
    await listen(pinged)
    try {
      await bench({ pingUrl: `http://127.0.0.1:${portOf(pinged)}/health`, checkIntervalMs: 100, checkPauseMs: 500 }, async (b) => {
        const until = async (what: () => boolean): Promise<void> => { for (let i = 0; i < 200 && !what(); i++) await new Promise((resolve) => { setTimeout(resolve, 20) }); expect(what()).toBe(true) }
        await b.get()
        await until(() => health.pings > 0)
        health.isWell = false
        const before = health.pings
        await until(() => health.pings > before + 1)
        expect(await b.get()).toEqual(good)
        expect(b.proxied.length).toBe(1)
        health.isWell = true
        const after = health.pings
        await until(() => health.pings > after + 1)
        await b.get()
        expect(b.proxied.length).toBe(2)
        await new Promise((resolve) => { setTimeout(resolve, 900) })
        const idle = health.pings
        await new Promise((resolve) => { setTimeout(resolve, 400) })
        expect(health.pings).toBe(idle)
      })
    } finally {
      pinged.closeAllConnections()
      pinged.close()
    }
  })
})

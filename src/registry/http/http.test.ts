import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../../../test/support/images.ts'
import { retryAfterMs } from '../../core/retry-after.ts'
import { redactUrl, scrub } from './redact.ts'
import { backoffMs, sleep } from './retry.ts'
import { tlsOptionsFor } from './tls.ts'
import { Transport } from './transport.ts'

describe('a URL in messages', () => {
  it.each([
    ['https://user:secret@h/p?digest=sha256:1&sig=secret&_state=secret#secret', 'https://h/p?digest=sha256:1&sig=…&_state=…'],
    ['https://h/token?account=me&scope=repository:a:pull&service=s', 'https://h/token?account=…&scope=repository:a:pull&service=s'],
    ['http://h:5000/v2/', 'http://h:5000/v2/'],
  ])('%s', (url, shown) => {
    expect(redactUrl(new URL(url))).toBe(shown)
  })

  it('and foreign texts lose every secret, but not words that are too short to be one', () => {
    expect(scrub('a hunter2 b hunter2 abc', ['hunter2', 'abc', ''])).toBe('a *** b *** abc')
  })
})

describe('waiting', () => {
  it.each([['2', 2000], ['0', 0], [' 7 ', 7000], ['Thu, 01 Jan 1970 00:00:10 GMT', 9000], ['Thu, 01 Jan 1970 00:00:00 GMT', 0], ['soon', undefined], ['-1', undefined], [undefined, undefined]])('Retry-After "%s" is %s ms', (header, ms) => {
    expect(retryAfterMs(header, undefined, 1000)).toBe(ms)
    if (header !== undefined) expect(retryAfterMs(header, 'Thu, 01 Jan 1970 00:00:01 GMT', 86_400_000), 'with a clock that is a day ahead').toBe(ms)
  })

  it('doubles, is jittered by half, and has a ceiling', () => {
    const policy = { attempts: 9, baseMs: 100, maxMs: 1000 }
    expect([2, 3, 4, 9].map((attempt) => backoffMs(policy, attempt, () => 1))).toEqual([100, 200, 400, 1000])
    expect(backoffMs(policy, 3, () => 0)).toBe(100)
  })

  it('ends with the reason of whoever aborts', async () => {
    const leaving = new AbortController()
    const waiting = sleep(60_000, leaving.signal)
    leaving.abort(new Error('left'))
    await expect(waiting).rejects.toThrow('left')
  })
})

describe('certificates', () => {
  it('come from the first certs.d directory that knows the host, with its client pair', async () => {
    await using root = await temporaryDirectory()
    const [first, second] = [path.join(root.path, '1'), path.join(root.path, '2')]
    const host = path.join(second, 'h.example:5000')
    await mkdir(host, { recursive: true })
    for (const [name, text] of [['ca.crt', 'CA'], ['client.cert', 'CERT'], ['client.key', 'KEY'], ['lonely.cert', 'X']]) await writeFile(path.join(host, name!), text!)
    const choice = { caFiles: [], certificateDirectories: [first, second], insecure: false }
    const found = await tlsOptionsFor('h.example:5000', choice)
    expect([found.ca?.at(-1), found.cert, found.key, found.rejectUnauthorized]).toEqual(['CA', 'CERT', 'KEY', undefined])
    expect(found.ca!.length).toBeGreaterThan(50) // the public roots stay
    expect(await tlsOptionsFor('h.example', choice)).toEqual({})
    for (const evil of ['..', '../2/h.example:5000', '.']) expect(await tlsOptionsFor(evil, choice)).toEqual({})
    expect(await tlsOptionsFor('h', { ...choice, insecure: true })).toEqual({ rejectUnauthorized: false })
  })

  it('that were asked for by name and are missing are an error', async () => {
    await expect(tlsOptionsFor('h', { caFiles: ['/nonexistent.pem'], certificateDirectories: [], insecure: false })).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  })
})

describe('a proxy of the environment', () => {
  const choice = { caFiles: [], certificateDirectories: [], insecure: false }

  async function proxied(env: (proxy: string) => NodeJS.ProcessEnv): Promise<{ status: number | undefined; through: string[] }> {
    const through: string[] = []
    const origin = createServer((_, response) => response.end('here'))
    const proxy = createServer((request, response) => { through.push(request.url ?? ''); response.writeHead(502).end() })
    proxy.on('connect', (request, socket) => {
      through.push(request.url ?? '')
      const onward = connect((origin.address() as AddressInfo).port, '127.0.0.1', () => { socket.write('HTTP/1.1 200 OK\r\n\r\n'); onward.pipe(socket).pipe(onward) })
      onward.on('error', () => {})
      socket.on('error', () => {})
    })
    for (const server of [origin, proxy]) await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
    try {
      await using transport = new Transport({ ...choice, env: env(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`) })
      const response = await transport.request({ method: 'GET', url: new URL('http://registry.invalid:5000/v2/'), signal: AbortSignal.timeout(5000) }).catch(() => undefined)
      await response?.discard()
      return { status: response?.status, through }
    } finally {
      for (const server of [origin, proxy]) { server.closeAllConnections(); server.close() }
    }
  }

  it('is used for other machines', async () => {
    expect(await proxied((proxy) => ({ HTTP_PROXY: proxy }))).toEqual({ status: 200, through: ['registry.invalid:5000'] })
  })

  it('is not used where no_proxy says so', async () => {
    expect(await proxied((proxy) => ({ http_proxy: proxy, no_proxy: '.invalid' }))).toEqual({ status: undefined, through: [] })
  })
})

describe('an unreachable host', () => {
  it('is named with the reason', async () => {
    await using transport = new Transport({ caFiles: [], certificateDirectories: [], insecure: false, env: {} })
    const request = { method: 'GET', url: new URL('http://127.0.0.1:1/v2/'), signal: AbortSignal.timeout(5000) } as const
    await expect(transport.request(request)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE', context: { reason: 'ECONNREFUSED' }, message: 'GET http://127.0.0.1:1/v2/: ECONNREFUSED' })
  })
})

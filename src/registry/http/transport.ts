// One HTTP exchange: pooled connections per origin, TLS per host, timeouts, abort, events. No retries, no redirects, no credentials:
// those belong to the client, which knows what may be repeated and what may be sent where.

import { setMaxListeners } from 'node:events'
import type { Dispatcher } from 'undici'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import { dragonflyHeaders, isProxyError, ProxyHealth, type ProxyChoice } from './proxy.ts'
import { redactUrl } from './redact.ts'
import { tlsOptionsFor, type TlsChoice } from './tls.ts'

/** LIMIT: more parallel requests to one registry than this only earn 429s; layers themselves are transferred five at a time. */
const CONNECTIONS_PER_ORIGIN = 16
/** LIMIT: a pull meets the registry, its token service and a CDN or two; a registry that redirects everywhere must not hoard sockets. */
const MAX_ORIGINS = 16
const CONNECT_TIMEOUT_MS = 15_000
/** LIMIT: longer silence than this inside a body is a dead connection; reads are resumed elsewhere. */
const BODY_IDLE_TIMEOUT_MS = 30_000
const HEADERS_TIMEOUT_MS = 60_000
/** LIMIT: an unread body up to this size is cheaper to read than a new connection. */
const DISCARD_LIMIT = 64 * KiB

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

export interface HttpRequest {
  readonly method: Method
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | string | AsyncIterable<Uint8Array>
  /** Until the answer begins; default the transport's. */
  readonly headersTimeoutMs?: number
  /** Nobody waits for the answer; told to proxies that know the difference. */
  readonly prefetch?: boolean
  /** Past the proxy that `TransportOptions.proxy` names: what it carries is not for others. */
  readonly isDirect?: boolean
  readonly signal: AbortSignal
}

export interface HttpResponse {
  readonly status: number
  readonly url: URL
  /** Lower-case name; several values joined by ", ". */
  header(name: string): string | undefined
  /** The body, once. Breaking out of the loop closes the connection. REGISTRY_UNREACHABLE when the connection breaks. */
  body(): AsyncGenerator<Uint8Array, void, undefined>
  /** The whole body; REGISTRY_PROTOCOL when it is longer than `limit` bytes. */
  bytes(limit: number): Promise<Uint8Array>
  /** Gives the connection back (short body) or closes it. */
  discard(): Promise<void>
}

export interface TransportOptions extends TlsChoice {
  readonly env: NodeJS.ProcessEnv
  /** A Unix socket to which all requests go, whatever their address says. */
  readonly socketPath?: string | undefined
  /** Instead of the environment's. */
  readonly proxy?: ProxyChoice | undefined
  /** Until a connection stands; default 15 s. */
  readonly connectTimeoutMs?: number | undefined
  /** Until an answer begins; default one minute. */
  readonly headersTimeoutMs?: number | undefined
  /** Silence inside a body that counts as a broken connection; default 30 s. */
  readonly bodyIdleTimeoutMs?: number | undefined
}

/** Owns the connections. */
export class Transport implements AsyncDisposable {
  #options: TransportOptions
  readonly #dispatchers = new Map<string, Promise<Dispatcher>>()
  #proxy: ProxyHealth | undefined

  constructor(options: TransportOptions) {
    this.#options = options
    this.useProxy(options.proxy)
  }

  /** This proxy from now on; undefined: none, or the environment's. */
  useProxy(proxy: ProxyChoice | undefined): void {
    this.#proxy?.[Symbol.dispose]()
    this.#options = { ...this.#options, proxy }
    this.#proxy = proxy && new ProxyHealth(proxy, (url) => this.#answersPing(url))
  }

  /** One exchange. REGISTRY_UNREACHABLE when there is no answer; rejects with `signal.reason` when aborted. */
  async request(request: HttpRequest): Promise<HttpResponse> {
    request.signal.throwIfAborted()
    setMaxListeners(0, request.signal) // one signal stops many requests; Node would warn of a leak at eleven
    const { proxy } = this.#options
    const health = this.#proxy
    if (proxy === undefined || health === undefined || request.isDirect === true) return await this.#exchange(request, request.url)
    if (health.use()) {
      const answer = await this.#throughProxy(request, { proxy, health })
      if (answer !== undefined) return answer
    } else if (!proxy.fallback) {
      throw new CodedError('REGISTRY_UNREACHABLE', `${request.method} ${redactUrl(request.url)}: the proxy is ill, and fallback is off`, { reason: 'proxy' })
    }
    return await this.#exchange(request, request.url)
  }

  /** Undefined: ask the server itself. */
  async #throughProxy(request: HttpRequest, { proxy, health }: { proxy: ProxyChoice; health: ProxyHealth }): Promise<HttpResponse | undefined> {
    const url = new URL(request.url)
    if (proxy.useHttp && url.protocol === 'https:') url.protocol = 'http:'
    const isBlob = request.method === 'GET' && request.headers?.['range'] !== undefined
    const mayFallBack = proxy.fallback && !isStream(request.body)
    try {
      const told = isBlob ? { ...request, headers: { ...request.headers, ...dragonflyHeaders({ prefetch: request.prefetch === true }) } } : request
      const response = await this.#exchange(told, url, (reason) => health.failed(reason))
      const isProxys = isProxyError(response.header('x-dragonfly-error-type'))
      if (isProxys) health.failed(`status ${response.status}`)
      if (!mayFallBack || !(isProxys || response.status >= 500)) return response
      await response.discard()
    } catch (error) {
      // a deadline is the proxy's fault, a reader who left is not
      if (request.signal.aborted && !isCoded(request.signal.reason)) throw error
      health.failed(isCoded(error) ? String(error.context['reason'] ?? error.code) : 'no answer')
      if (!mayFallBack || request.signal.aborted) throw error
    }
    return undefined
  }

  /** The request at `url`, which is its own or what a proxy is to be asked for; `broken` hears of a body that breaks off. */
  async #exchange(request: HttpRequest, url: URL, broken?: (reason: string) => void): Promise<HttpResponse> {
    const started = performance.now()
    const dispatcher = await this.#dispatcherFor(url, broken !== undefined)
    try {
      const data = await dispatcher.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: request.method,
        headers: { 'user-agent': 'nydus-ts', 'accept-encoding': 'identity', ...request.headers },
        // SAFETY: undici takes async iterables as bodies; its type names only Node's Readable.
        body: (request.body ?? null) as Dispatcher.DispatchOptions['body'] & null,
        signal: request.signal,
        headersTimeout: request.headersTimeoutMs ?? this.#options.headersTimeoutMs ?? HEADERS_TIMEOUT_MS,
        bodyTimeout: this.#options.bodyIdleTimeoutMs ?? BODY_IDLE_TIMEOUT_MS,
      })
      return new Response(request, data, { started, broken })
    } catch (error) {
      throw unreachable(error, request)
    }
  }

  async #answersPing(url: URL): Promise<boolean> {
    const signal = AbortSignal.timeout(this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS)
    try {
      const response = await this.#exchange({ method: 'GET', url, signal }, url)
      await response.discard()
      return response.status < 400
    } catch {
      return false
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#proxy?.[Symbol.dispose]()
    const dispatchers = [...this.#dispatchers.values()]
    this.#dispatchers.clear()
    // destroy, not close: whoever disposes no longer waits for any answer
    for (const dispatcher of dispatchers) await (await dispatcher).destroy()
  }

  #dispatcherFor(url: URL, isProxied: boolean): Promise<Dispatcher> {
    const proxyUrl = isProxied ? this.#options.proxy?.url : undefined
    const key = `${proxyUrl ?? ''} ${url.origin}`
    const known = this.#dispatchers.get(key)
    if (known !== undefined) {
      this.#dispatchers.delete(key) // least recently used first
      this.#dispatchers.set(key, known)
      return known
    }
    const oldest = this.#dispatchers.keys().next()
    if (this.#dispatchers.size >= MAX_ORIGINS && !oldest.done) {
      const evicted = this.#dispatchers.get(oldest.value)
      this.#dispatchers.delete(oldest.value)
      void evicted?.then((dispatcher) => dispatcher.close()) // running requests finish
    }
    const dispatcher = this.#open(url, proxyUrl)
    this.#dispatchers.set(key, dispatcher)
    dispatcher.catch(() => this.#dispatchers.delete(key))
    return dispatcher
  }

  async #open(url: URL, proxyUrl: string | undefined): Promise<Dispatcher> {
    const tls = url.protocol === 'https:' ? await tlsOptionsFor(url.host, this.#options) : {}
    // loaded at the first request: a local image needs none of it
    const { Pool } = await import('./pool.ts')
    const connect = { ...tls, timeout: this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS }
    const { env, socketPath, proxy } = this.#options
    const connections = CONNECTIONS_PER_ORIGIN
    if (socketPath !== undefined) return new Pool(url.origin, { connections, connect: { ...connect, socketPath } })
    // no tunnel for plain HTTP: a proxy that shares blobs has to see them
    if (proxyUrl !== undefined) return new (await import('undici')).ProxyAgent({ uri: proxyUrl, proxyTunnel: false, connections, requestTls: connect, proxyTls: { timeout: connect.timeout } })
    const isProxied = proxy === undefined && !isLoopback(url.hostname) && ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'].some((name) => (env[name] ?? '') !== '')
    if (!isProxied) return new Pool(url.origin, { connections, connect })
    return new (await import('undici')).EnvHttpProxyAgent({
      connections, connect, requestTls: tls,
      httpProxy: env['http_proxy'] ?? env['HTTP_PROXY'] ?? '',
      httpsProxy: env['https_proxy'] ?? env['HTTPS_PROXY'] ?? '',
      noProxy: env['no_proxy'] ?? env['NO_PROXY'] ?? '',
    })
  }
}

/** Whether `hostname` (as in URL.hostname) is this machine. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}

function isStream(body: HttpRequest['body']): boolean {
  return typeof body === 'object' && !(body instanceof Uint8Array)
}

class Response implements HttpResponse {
  readonly status: number
  readonly url: URL
  readonly #request: HttpRequest
  readonly #data: Dispatcher.ResponseData
  readonly #started: number
  readonly #broken: ((reason: string) => void) | undefined

  constructor(request: HttpRequest, data: Dispatcher.ResponseData, { started, broken }: { readonly started: number; readonly broken: ((reason: string) => void) | undefined }) {
    this.status = data.statusCode
    this.url = request.url
    this.#request = request
    this.#data = data
    this.#started = started
    this.#broken = broken
    data.body.on('error', () => {}) // whoever iterates gets it; nobody may have begun to
  }

  header(name: string): string | undefined {
    const value = this.#data.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  async *body(): AsyncGenerator<Uint8Array, void, undefined> {
    let bytes = 0
    try {
      for await (const chunk of this.#data.body) {
        bytes += chunk.length
        yield chunk
      }
    } catch (error) {
      if (!this.#request.signal.aborted || isCoded(this.#request.signal.reason)) this.#broken?.('the answer broke off')
      throw unreachable(error, this.#request)
    } finally {
      this.#done(bytes)
    }
  }

  async bytes(limit: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let length = 0
    for await (const chunk of this.body()) {
      length += chunk.length
      if (length > limit) throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(this.url)}: answer is longer than ${limit} bytes`, { limit })
      parts.push(chunk)
    }
    return Buffer.concat(parts, length)
  }

  async discard(): Promise<void> {
    try {
      await this.#data.body.dump({ limit: DISCARD_LIMIT, signal: this.#request.signal })
    } catch {
      // nobody wants this body any more, and a broken connection is not reused by the pool
    }
    this.#done(0)
  }

  #done(bytes: number): void {
    const { method, url } = this.#request
    publish('registry:request:done', { method, url: redactUrl(url), status: this.status, durationMs: performance.now() - this.#started, bytes })
  }
}

/** A transport error as this project's, or the caller's own reason when it was the caller who left. */
function unreachable(error: unknown, request: HttpRequest): unknown {
  if (request.signal.aborted) return request.signal.reason
  if (isCoded(error)) return error // the body's own source failed
  const reason = error instanceof Error ? ('code' in error && typeof error.code === 'string' ? error.code : error.name) : String(error)
  return new CodedError('REGISTRY_UNREACHABLE', `${request.method} ${redactUrl(request.url)}: ${reason}`, { reason }, { cause: error })
}

// One HTTP exchange: pooled connections per origin, TLS per host, timeouts, abort, events. No retries, no redirects, no credentials:
// those belong to the client, which knows what may be repeated and what may be sent where.

import { setMaxListeners } from 'node:events'
import type { Dispatcher } from 'undici'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
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
  /** Until a connection stands; default 15 s. */
  readonly connectTimeoutMs?: number | undefined
  /** Until an answer begins; default one minute. */
  readonly headersTimeoutMs?: number | undefined
  /** Silence inside a body that counts as a broken connection; default 30 s. */
  readonly bodyIdleTimeoutMs?: number | undefined
}

/** Owns the connections. */
export class Transport implements AsyncDisposable {
  readonly #options: TransportOptions
  readonly #dispatchers = new Map<string, Promise<Dispatcher>>()

  constructor(options: TransportOptions) {
    this.#options = options
  }

  /** One exchange. REGISTRY_UNREACHABLE when there is no answer; rejects with `signal.reason` when aborted. */
  async request(request: HttpRequest): Promise<HttpResponse> {
    request.signal.throwIfAborted()
    setMaxListeners(0, request.signal) // one signal stops many requests; Node would warn of a leak at eleven
    const started = performance.now()
    const dispatcher = await this.#dispatcherFor(request.url)
    try {
      const data = await dispatcher.request({
        origin: request.url.origin,
        path: request.url.pathname + request.url.search,
        method: request.method,
        headers: { 'user-agent': 'nydus-ts', 'accept-encoding': 'identity', ...request.headers },
        // SAFETY: undici takes async iterables as bodies; its type names only Node's Readable.
        body: (request.body ?? null) as Dispatcher.DispatchOptions['body'] & null,
        signal: request.signal,
        headersTimeout: request.headersTimeoutMs ?? this.#options.headersTimeoutMs ?? HEADERS_TIMEOUT_MS,
        bodyTimeout: this.#options.bodyIdleTimeoutMs ?? BODY_IDLE_TIMEOUT_MS,
      })
      return new Response(request, data, started)
    } catch (error) {
      throw unreachable(error, request)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const dispatchers = [...this.#dispatchers.values()]
    this.#dispatchers.clear()
    // destroy, not close: whoever disposes no longer waits for any answer
    for (const dispatcher of dispatchers) await (await dispatcher).destroy()
  }

  #dispatcherFor(url: URL): Promise<Dispatcher> {
    const known = this.#dispatchers.get(url.origin)
    if (known !== undefined) {
      this.#dispatchers.delete(url.origin) // least recently used first
      this.#dispatchers.set(url.origin, known)
      return known
    }
    const oldest = this.#dispatchers.keys().next()
    if (this.#dispatchers.size >= MAX_ORIGINS && !oldest.done) {
      const evicted = this.#dispatchers.get(oldest.value)
      this.#dispatchers.delete(oldest.value)
      void evicted?.then((dispatcher) => dispatcher.close()) // running requests finish
    }
    const dispatcher = this.#open(url)
    this.#dispatchers.set(url.origin, dispatcher)
    dispatcher.catch(() => this.#dispatchers.delete(url.origin))
    return dispatcher
  }

  async #open(url: URL): Promise<Dispatcher> {
    const tls = url.protocol === 'https:' ? await tlsOptionsFor(url.host, this.#options) : {}
    // loaded at the first request: undici takes longer to load than a local image takes to mount
    const { EnvHttpProxyAgent, Pool } = await import('undici')
    const connect = { ...tls, timeout: this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS }
    const { env, socketPath } = this.#options
    if (socketPath !== undefined) return new Pool(url.origin, { connections: CONNECTIONS_PER_ORIGIN, connect: { ...connect, socketPath } })
    const proxied = !isLoopback(url.hostname) && ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'].some((name) => (env[name] ?? '') !== '')
    if (!proxied) return new Pool(url.origin, { connections: CONNECTIONS_PER_ORIGIN, connect })
    return new EnvHttpProxyAgent({
      connections: CONNECTIONS_PER_ORIGIN, connect, requestTls: tls,
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

class Response implements HttpResponse {
  readonly status: number
  readonly url: URL
  readonly #request: HttpRequest
  readonly #data: Dispatcher.ResponseData
  readonly #started: number

  constructor(request: HttpRequest, data: Dispatcher.ResponseData, started: number) {
    this.status = data.statusCode
    this.url = request.url
    this.#request = request
    this.#data = data
    this.#started = started
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

// The daemon's HTTP API on a Unix socket.
// SPEC: spec-surface.md B.5. COMPAT: errors are {"code":"UNDEFINED","message":...}; callers accept 200 and 204 only.

import { existsSync, rmSync } from 'node:fs'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { CodedError, isCoded } from '../core/errors.ts'
import { filesOf, patternOf, traceOf } from './api/accesses.ts'
import { allMetrics, cacheStats, changeableConfig, collection, describe, fsStats, inflightRequest, type ProgramVersion, superBlockOf } from './api/documents.ts'
import { cacheOf, erofsRequest, imageOf, mountAt, mountOf, mountpointOf, mountRequest } from './api/instances.ts'
import { PROMETHEUS_TYPE, prometheusText } from './api/prometheus.ts'
import { backendChangeOf } from './configure.ts'
import type { Daemon } from './daemon/daemon.ts'

/** LIMIT: the largest body any route takes is a configuration, which upstream bounds to 1 MiB. */
const MAX_BODY = 2 ** 20

export interface ApiOptions {
  readonly socket: string
  readonly version: ProgramVersion
  /** The last errors, see ErrorEvents. */
  readonly events: object
  setLogLevel(level: string): void
}

/** What the API needs of a daemon. */
export type ApiDaemon = Pick<Daemon, 'id' | 'supervisor' | 'state' | 'takeOver' | 'start' | 'sendState' | 'stop' | 'mounts' | 'addMount' | 'replaceMount' | 'removeMount' | 'inflight'> & Partial<Pick<Daemon, 'addErofs'>>

/** `text` is sent as it is, `body` as JSON. */
interface Answer { readonly status: number; readonly body?: unknown; readonly text?: { readonly type: string; readonly content: string } }
const DONE: Answer = { status: 204 }

/** The API on its socket, or for connections that somebody else accepts; made by `listen` or `attach`, to be closed. */
export class ApiServer {
  readonly #server: Server
  readonly #socket: string | undefined

  private constructor(server: Server, socket: string | undefined) {
    this.#server = server
    this.#socket = socket
  }

  /** Serves connections that are handed to it, one request each. */
  static async attach(daemon: ApiDaemon, options: ApiOptions): Promise<ApiServer> {
    return new ApiServer(await createApi(daemon, options, { keepAlive: false }), undefined)
  }

  /** Listens; a file left at the path by a daemon that died is replaced. @throws CONFIG_INVALID when the path cannot be listened on */
  static async listen(daemon: ApiDaemon, options: ApiOptions): Promise<ApiServer> {
    const server = await createApi(daemon, options, { keepAlive: true })
    rmSync(options.socket, { force: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => reject(new CodedError('CONFIG_INVALID', `cannot listen on ${options.socket}: ${cause.message}`, { socket: options.socket }, { cause })))
      server.listen(options.socket, resolve)
    })
    return new ApiServer(server, options.socket)
  }

  /** Stops listening, removes the socket and ends all connections. */
  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
    if (this.#socket !== undefined && existsSync(this.#socket)) rmSync(this.#socket, { force: true })
  }

  /** Serves the connected socket `fd`, which is its own from now on; `closed` is called when it is finished. */
  accept(fd: number, closed: () => void): void {
    void import('node:net').then(({ Socket }) => {
      const socket = new Socket({ fd, readable: true, writable: true })
      socket.once('close', closed)
      this.#server.emit('connection', socket)
    })
  }
}

async function createApi(daemon: ApiDaemon, options: ApiOptions, { keepAlive }: { readonly keepAlive: boolean }): Promise<Server> {
  const { createServer } = await import('node:http') // 10 ms that the mount need not wait for
  const server = createServer((request, response) => {
    response.shouldKeepAlive &&= keepAlive
    void serve(daemon, options, request, response)
  })
  // The snapshotter holds a connection open without a byte and takes its end for the daemon's death: nothing here may reap it.
  server.headersTimeout = 0
  server.requestTimeout = 0
  server.timeout = 0
  server.keepAliveTimeout = 0
  return server
}

async function serve(daemon: ApiDaemon, options: ApiOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  let answer: Answer
  try {
    answer = await route(daemon, options, request)
  } catch (error) {
    answer = failure(statusOf(error), messageOf(error, request.url ?? ''))
  }
  const { type, content } = answer.text ?? { type: 'application/json', content: answer.body === undefined ? undefined : JSON.stringify(answer.body) }
  response.writeHead(answer.status, content === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(content) })
  response.end(content)
}

type Route = (context: { daemon: ApiDaemon; options: ApiOptions; query: URLSearchParams; body: () => Promise<unknown> }) => Answer | Promise<Answer>

/** Every path and its methods; openapi.yaml describes them, and a test holds both against each other. */
export const ROUTES: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
  '/api/v1/daemon': {
    GET: ({ daemon, options }) => ({ status: 200, body: { ...describe(daemon, options.version), backend_collection: collection(daemon) } }),
    PUT: setDaemon,
  },
  '/api/v2/daemon': {
    GET: ({ daemon, options }) => ({ status: 200, body: describe(daemon, options.version) }),
    PUT: setDaemon,
  },
  '/api/v1/daemon/fuse/sendfd': { PUT: async ({ daemon }) => { await daemon.sendState(); return DONE } },
  '/api/v1/daemon/fuse/takeover': { PUT: async ({ daemon }) => { await daemon.takeOver(); return DONE } },
  '/api/v1/daemon/start': { PUT: ({ daemon }) => { daemon.start(); return DONE } },
  '/api/v1/daemon/exit': {
    PUT: ({ daemon }) => {
      setImmediate(() => void daemon.stop({ unmount: false })) // after this answer is on its way
      return { status: 204 }
    },
  },
  '/api/v1/config': {
    GET: ({ daemon, query }) => ({ status: 200, body: changeableConfig(mountOf(daemon, query)) }),
    PUT: async ({ daemon, query, body }) => {
      const change = backendChangeOf(await body())
      const mount = mountOf(daemon, query)
      imageOf(mount).reconfigure(change)
      mount.remember?.(change)
      return DONE
    },
  },
  '/api/v1/daemon/events': { GET: ({ options }) => ({ status: 200, body: options.events }) },
  '/api/v1/daemon/backend': { GET: ({ daemon, query }) => ({ status: 200, body: superBlockOf(imageOf(mountAt(daemon, query))) }) },
  '/api/v1/mount': {
    POST: async ({ daemon, query, body }) => {
      const fields = await body()
      const erofs = erofsRequest(query, fields)
      if (erofs === undefined) await daemon.addMount(mountRequest(query, fields))
      else if (daemon.addErofs === undefined) throw new CodedError('SERVE_UNSUPPORTED', 'this daemon has no kernel to mount for')
      else await daemon.addErofs(erofs)
      return DONE
    },
    PUT: async ({ daemon, query, body }) => { await daemon.replaceMount(mountRequest(query, await body())); return DONE },
    DELETE: async ({ daemon, query }) => { await daemon.removeMount(mountpointOf(query)); return DONE },
  },
  '/api/v1/metrics': { GET: ({ daemon, query }) => ({ status: 200, body: fsStats(mountOf(daemon, query)) }) },
  '/api/v1/metrics/backend': { GET: ({ daemon, query }) => ({ status: 200, body: imageOf(mountOf(daemon, query)).backendMetrics }) },
  '/api/v1/metrics/blobcache': { GET: ({ daemon, query }) => ({ status: 200, body: cacheStats(cacheOf(daemon, query)) }) },
  '/api/v1/metrics/files': { GET: ({ daemon, query }) => ({ status: 200, body: filesOf(mountOf(daemon, query), query) }) },
  '/api/v1/metrics/pattern': { GET: ({ daemon, query }) => ({ status: 200, body: patternOf(mountOf(daemon, query)) }) },
  '/api/v1/trace': {
    PUT: ({ daemon, query }) => { mountOf(daemon, query).trace(true); return DONE },
    GET: async ({ daemon, query }) => ({ status: 200, body: await traceOf(mountOf(daemon, query)) }),
    DELETE: async ({ daemon, query }) => ({ status: 200, body: await traceOf(mountOf(daemon, query), { stop: true }) }),
  },
  '/metrics': { GET: ({ daemon, options }) => ({ status: 200, text: { type: PROMETHEUS_TYPE, content: prometheusText(daemon, options.version) } }) },
  '/api/v2/metrics': { GET: ({ daemon }) => ({ status: 200, body: allMetrics(daemon) }) },
  '/api/v1/metrics/inflight': {
    GET: ({ daemon }) => {
      const inflight = daemon.inflight().map(inflightRequest)
      return inflight.length === 0 ? { status: 204 } : { status: 200, body: inflight }
    },
  },
}

async function route(daemon: ApiDaemon, options: ApiOptions, request: IncomingMessage): Promise<Answer> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
  const methods = ROUTES[pathname]
  if (!methods) return failure(404, `no such path: ${pathname}`)
  const handler = methods[request.method ?? '']
  if (!handler) return failure(400, `${request.method} is not a method of ${pathname}`)
  return await handler({ daemon, options, query: searchParams, body: () => bodyOf(request) })
}

async function setDaemon({ options, body }: Parameters<Route>[0]): Promise<Answer> {
  const value = await body()
  const level = typeof value === 'object' && value !== null && 'log_level' in value ? value.log_level : undefined
  if (typeof level !== 'string' || !/^(trace|debug|info|warn|error)$/.test(level)) throw new CodedError('CONFIG_INVALID', 'want {"log_level": "trace|debug|info|warn|error"}')
  options.setLogLevel(level)
  return { status: 204 }
}

// A body that is too long is read to its end all the same (and thrown away): a client hears its answer only after it has sent everything.
async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of request) {
    if (!(part instanceof Buffer)) throw new Error('a request stream without an encoding gives buffers')
    size += part.length
    if (size <= MAX_BODY) parts.push(part)
  }
  if (size > MAX_BODY) throw new CodedError('CONFIG_INVALID', `a body is at most ${MAX_BODY} bytes`)
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'))
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', 'the body is not JSON', {}, { cause })
  }
}

function statusOf(error: unknown): number {
  if (!isCoded(error)) return 500
  if (error.code === 'SERVE_NO_METRICS') return 404
  if (error.code === 'SERVE_UNSUPPORTED') return 501
  if (error.code === 'CONFIG_INVALID' || error.code === 'SERVE_STATE') return 400
  return error.code === 'SERVE_NOT_READY' ? 503 : 500
}

// COMPAT: upstream's smoke tests look for these words.
function messageOf(error: unknown, url: string): string {
  const message = error instanceof Error ? error.message : String(error)
  if (!isCoded(error) || error.code !== 'SERVE_NO_METRICS') return message
  const word = METRICS_WORDS[url.split('?')[0]!.split('/').at(-1)!] ?? 'GlobalMetrics'
  return `${word}(Metrics(Stats(NoCounter))): ${message}`
}

const METRICS_WORDS: Readonly<Record<string, string>> = { files: 'FsFilesMetrics', pattern: 'Pattern', backend: 'BackendMetrics', blobcache: 'BlobcacheMetrics' }

function failure(status: number, message: string): Answer {
  return { status, body: { code: 'UNDEFINED', message } }
}

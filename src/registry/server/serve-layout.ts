// A small OCI registry over one layout directory: pull with ranges, push, tags, referrers. For tests, CI and machines without a registry.
// It has no users, so it listens on the loopback unless told otherwise. SPEC: opencontainers/distribution-spec v1.1.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { GiB } from '../../core/units.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { LayoutStore } from '../layout/layout-store.ts'
import { deleteManifest, getManifest, listReferrers, listRepositories, listTags, putManifest, type ManifestContext } from './manifests.ts'
import { Refusal, refusalOf, sendJson, sendRefusal } from './reply.ts'
import { parseRange, routeOf, type Route } from './route.ts'
import { Uploads } from './uploads.ts'

/** LIMIT: the last requests kept in memory for `log`; a longer history is the listener's business. */
const MAX_LOG = 100_000
/** LIMIT: a client that neither sends nor reads for this long has gone. */
const IDLE_TIMEOUT_MS = 5 * 60_000

/** One request, after its end. `bytes`: of the body that was sent; `range`: the Range header as it came. */
export interface AccessEntry {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly bytes: number
  readonly range: string | undefined
  readonly durationMs: number
}

export interface ServeOptions {
  /** Default 127.0.0.1. */
  readonly host?: string | undefined
  /** Default 0: any free one. */
  readonly port?: number | undefined
  readonly readOnly?: boolean | undefined
  /** The repository that shows images with a bare tag; default the directory's name. */
  readonly repository?: string | undefined
  /** Largest blob that may be pushed; default 64 GiB. */
  readonly maxBlobBytes?: number | undefined
  /** Create the layout when it is missing; default true unless `readOnly`. */
  readonly create?: boolean | undefined
}

export interface LayoutServer extends AsyncDisposable {
  readonly port: number
  /** `127.0.0.1:PORT`, as references want it. */
  readonly host: string
  /** `http://127.0.0.1:PORT`. */
  readonly url: string
  /** The repository that shows images with a bare tag. */
  readonly repository: string
  /** Requests so far, oldest first; the same entries as the event `registry:access:done`. */
  readonly log: readonly AccessEntry[]
  /** Ends all connections; unfinished uploads leave nothing. */
  close(): Promise<void>
}

/** Serves `directory` until closed. REGISTRY_NOT_FOUND, REGISTRY_STORE, REGISTRY_UNREACHABLE when the address is taken. */
export async function serveLayout(directory: string, options: ServeOptions = {}): Promise<LayoutServer> {
  const store = await LayoutStore.open(directory, { create: options.create ?? options.readOnly !== true })
  const running = new AbortController()
  const context: Context = {
    store, signal: running.signal, readOnly: options.readOnly === true,
    defaultRepository: options.repository ?? repositoryName(store.path),
    uploads: new Uploads(store, { maxBytes: options.maxBlobBytes ?? 64 * GiB }),
  }
  const log: AccessEntry[] = []
  const server = createServer((request, response) => void answer(context, { request, response, log }))
  server.requestTimeout = 0 // uploads of a large blob take their time; silence is what ends them
  server.timeout = IDLE_TIMEOUT_MS
  const host = options.host ?? '127.0.0.1'
  const port = await listen(server, host, options.port ?? 0)
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const close = async () => {
    running.abort()
    const closed = server.listening ? once(server, 'close') : undefined
    server.close()
    server.closeAllConnections()
    await closed
    await context.uploads[Symbol.asyncDispose]()
  }
  return { port, host: authority, url: `http://${authority}`, repository: context.defaultRepository, log, close, [Symbol.asyncDispose]: close }
}

interface Context extends ManifestContext { readonly uploads: Uploads; readonly readOnly: boolean }
interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: URLSearchParams
  /** Body bytes handed to the socket, also of answers that a client did not wait for. */
  readonly sent: { bytes: number }
}

async function answer(context: Context, { request, response, log }: { request: IncomingMessage; response: ServerResponse; log: AccessEntry[] }): Promise<void> {
  const started = performance.now()
  const [path = '', query = ''] = (request.url ?? '').split('?', 2)
  const sent = { bytes: 0 }
  request.on('error', () => {}) // whoever reads the body sees it; nobody may be reading
  try {
    sent.bytes = await dispatch(context, path, { request, response, query: new URLSearchParams(query), sent })
  } catch (error) {
    if (response.headersSent) response.destroy() // too late to say anything: the client sees a short body
    else sent.bytes = sendRefusal(response, refusalOf(error))
  }
  const entry: AccessEntry = {
    method: request.method ?? '', path, status: response.statusCode, bytes: sent.bytes,
    range: request.headers.range, durationMs: performance.now() - started,
  }
  if (log.length >= MAX_LOG) log.shift()
  log.push(entry)
  publish('registry:access:done', entry)
}

async function dispatch(context: Context, path: string, exchange: Exchange): Promise<number> {
  const { request, response } = exchange
  const route = routeOf(path)
  const reads = request.method === 'GET' || request.method === 'HEAD'
  // web pages can reach the loopback too; registry clients never send an Origin
  if (request.headers.origin !== undefined) throw new Refusal(403, 'DENIED', 'not for browsers')
  if (context.readOnly && !reads) throw new Refusal(405, 'UNSUPPORTED', 'this registry is read-only')
  if (route.kind === 'upload' || route.kind === 'uploads') {
    if (route.kind === 'upload') await context.uploads.continue(route.repository, route.session, exchange)
    else if (request.method === 'POST') await context.uploads.start(route.repository, exchange)
    else throw notAllowed()
    return 0
  }
  if (reads) return read(context, route, exchange)
  if (route.kind === 'manifest' && request.method === 'PUT') return putManifest(context, route, exchange)
  if (route.kind === 'manifest' && request.method === 'DELETE') return deleteManifest(context, route, response)
  if (route.kind === 'blob' && request.method === 'DELETE') {
    if (!await context.store.remove(route.digest)) throw new Refusal(404, 'BLOB_UNKNOWN', 'no such blob')
    response.writeHead(202, { 'content-length': 0 }).end()
    return 0
  }
  throw notAllowed()
}

function read(context: Context, route: Exclude<Route, { kind: 'upload' | 'uploads' }>, exchange: Exchange): Promise<number> | number {
  switch (route.kind) {
    case 'base': return sendJson(exchange.response, {}, { headers: { 'docker-distribution-api-version': 'registry/2.0' } })
    case 'catalog': return listRepositories(context, exchange)
    case 'tags': return listTags(context, route.repository, exchange)
    case 'manifest': return getManifest(context, route, exchange.response)
    case 'referrers': return listReferrers(context, route.digest, exchange)
    case 'blob': return getBlob(context.store, route.digest, exchange)
  }
}

async function getBlob(store: LayoutStore, digest: Digest, { request, response, sent }: Exchange): Promise<number> {
  const size = await store.blobSize(digest)
  if (size === undefined) throw new Refusal(404, 'BLOB_UNKNOWN', `no blob ${digest}`)
  const range = parseRange(request.headers.range, size)
  const { offset, length } = range ?? { offset: 0, length: size }
  response.writeHead(range === undefined ? 200 : 206, {
    'content-type': 'application/octet-stream', 'content-length': length, 'accept-ranges': 'bytes', 'docker-content-digest': digest, etag: `"${digest}"`,
    ...(range === undefined ? {} : { 'content-range': `bytes ${offset}-${offset + length - 1}/${size}` }),
  })
  if (request.method === 'HEAD') {
    response.end()
    return 0
  }
  const counted = async function* () {
    for await (const chunk of store.read(digest, { offset, length })) {
      sent.bytes += chunk.length
      yield chunk
    }
  }
  await pipeline(Readable.from(counted(), { objectMode: false }), response)
  return length
}

function notAllowed(): Refusal {
  return new Refusal(405, 'UNSUPPORTED', 'method not allowed')
}

/** The directory's name as a repository name: what is not allowed in one becomes a dash. */
function repositoryName(directory: string): string {
  const name = path.basename(directory).toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '')
  return name === '' ? 'image' : name
}

async function listen(server: Server, host: string, port: number): Promise<number> {
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (error) {
    if (!isSystemError(error, 'EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL')) throw error
    throw new CodedError('REGISTRY_UNREACHABLE', `cannot listen on ${host}:${port}`, { host, port, reason: 'listen' }, { cause: error })
  }
  // SAFETY: a TCP server that listens has an AddressInfo.
  return (server.address() as AddressInfo).port
}

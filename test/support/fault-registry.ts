// A registry that misbehaves on demand: the embedded registry behind a proxy whose faults a test queues.

import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveLayout, type LayoutServer } from '../../src/registry/index.ts'

export interface ForwardOptions {
  /** Do not tell the registry about the Range: it answers 200 with everything. */
  readonly dropRange?: boolean
  /** Destroy the connection after so many bytes of the answer's body. */
  readonly cutAfter?: number
  /** End the answer properly after so many bytes, without a Content-Length. */
  readonly endAfter?: number
  /** The registry does it, the client never hears of it. */
  readonly loseAnswer?: boolean
  readonly changeBody?: (body: Buffer) => Buffer
  readonly changeHeaders?: (headers: OutgoingHttpHeaders) => void
  /** Destroy the client's connection after so many bytes of the request's body arrived, having passed them on. */
  readonly cutRequestAfter?: number
}

export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  forward(options?: ForwardOptions): void
}

export interface Fault {
  /** Of `METHOD /path?query`. */
  readonly match: RegExp
  /** How often; default once. */
  times?: number
  readonly act: (exchange: Exchange) => void
}

export interface Seen { readonly method: string; readonly url: string; readonly headers: IncomingHttpHeaders }

export interface FaultRegistry extends AsyncDisposable {
  readonly host: string
  readonly url: string
  readonly backend: LayoutServer
  readonly seen: readonly Seen[]
  /** Queued faults; the first that matches and has times left acts. */
  fault(fault: Fault): void
  /** Requests whose `METHOD /url` matches. */
  count(pattern: RegExp): number
}

/** Starts one over a layout in `directory`. `gate` sees each request first and may answer it: true when it did. */
export async function startFaultRegistry(directory: string, gate?: (exchange: Exchange) => boolean): Promise<FaultRegistry> {
  const backend = await serveLayout(directory)
  const faults: Fault[] = []
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const line = `${request.method} ${request.url}`
    seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers })
    response.on('error', () => {})
    request.on('error', () => {})
    const exchange: Exchange = { request, response, forward: (options) => forward(backend, { request, response, options: options ?? {} }) }
    if (gate?.(exchange)) return
    const fault = faults.find((item) => (item.times ?? 1) > 0 && item.match.test(line))
    if (fault === undefined) exchange.forward()
    else {
      fault.times = (fault.times ?? 1) - 1
      fault.act(exchange)
    }
  })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  return {
    host: `127.0.0.1:${port}`, url: `http://127.0.0.1:${port}`, backend, seen,
    fault: (item) => void faults.push(item),
    count: (pattern) => seen.filter(({ method, url }) => pattern.test(`${method} ${url}`)).length,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => { server.close(resolve) })
      await backend.close()
    },
  }
}

/** Answers with a status and nothing else; the request's body is read first. */
export function answer(status: number, headers: OutgoingHttpHeaders = {}, body = ''): (exchange: Exchange) => void {
  return ({ request, response }) => {
    request.resume().on('end', () => response.writeHead(status, headers).end(body))
  }
}

/** Passes the request on, with a fault. */
export function forwarding(options: ForwardOptions): (exchange: Exchange) => void {
  return ({ forward: pass }) => pass(options)
}

function forward(backend: LayoutServer, { request, response, options }: { request: IncomingMessage; response: ServerResponse; options: ForwardOptions }): void {
  const headers = { ...request.headers }
  if (options.dropRange) delete headers.range
  const upstream = httpRequest({ host: '127.0.0.1', port: backend.port, method: request.method, path: request.url, headers }, (answered) => {
    if (options.loseAnswer) { response.destroy(); return }
    const parts: Buffer[] = []
    let sent = 0
    const out: OutgoingHttpHeaders = { ...answered.headers }
    if (options.endAfter !== undefined || options.changeBody) delete out['content-length']
    options.changeHeaders?.(out)
    response.writeHead(answered.statusCode ?? 500, out)
    answered.on('data', (chunk: Buffer) => {
      if (options.changeBody) { parts.push(chunk); return }
      const limit = options.cutAfter ?? options.endAfter
      const room = limit === undefined ? chunk.length : Math.max(0, limit - sent)
      if (room > 0) response.write(chunk.subarray(0, room))
      sent += Math.min(room, chunk.length)
      if (limit === undefined || sent < limit || response.writableEnded) return
      if (options.cutAfter !== undefined) setTimeout(() => response.destroy(), 20) // let the bytes leave first
      else response.end()
      answered.destroy()
    })
    answered.on('error', () => {})
    answered.on('end', () => { response.end(options.changeBody?.(Buffer.concat(parts))) })
  })
  upstream.on('error', () => response.destroy())
  if (options.cutRequestAfter === undefined) { request.pipe(upstream); return }
  let passed = 0
  request.on('data', (chunk: Buffer) => {
    passed += chunk.length
    upstream.write(chunk)
    if (passed < options.cutRequestAfter!) return
    request.pause()
    setTimeout(() => { upstream.destroy(); request.socket.destroy() }, 50)
  })
}

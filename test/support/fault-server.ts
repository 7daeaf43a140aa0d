// A registry of one blob that misbehaves on demand, and knows whom it hit: readers and the prefetch want different parts of the blob.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Answering {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** The range asked for: its bytes, where they begin, and how long the blob is. */
  readonly bytes: Buffer
  readonly offset: number
  readonly size: number
  /** Answers as a registry should, with other bytes if given. */
  right(bytes?: Buffer): void
}

/** Answers in its own way. */
export type Fault = (answering: Answering) => void

export interface FaultServer extends AsyncDisposable {
  readonly host: string
  /** What it does now instead of answering. */
  fault: Fault | undefined
  /** Sees each request before; true when it has answered it. */
  gate: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined
  /** Requests that met the fault. */
  readonly hit: { demand: number; prefetch: number }
  readonly requests: { demand: number; prefetch: number; other: number }
  readonly authorizations: Set<string | undefined>
  /** Bytes of ranges that were answered as they should be. */
  readonly sentBytes: number
  /** Off and on again, at the same address. */
  stop(): Promise<void>
  start(): Promise<void>
}

/** Whom a range (both ends inclusive) is for. */
export type LaneOf = (range: { readonly from: number; readonly to: number }) => 'demand' | 'prefetch' | 'other'

/** The range that a request asks for; undefined: everything. */
export function rangeOf(request: IncomingMessage): { readonly from: number; readonly to: number } | undefined {
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
  return range === null ? undefined : { from: Number(range[1]), to: Number(range[2]) }
}

export interface FaultServerOptions {
  readonly blobId: string
  readonly blob: Buffer
  readonly laneOf: LaneOf
}

export async function startFaultServer({ blobId, blob, laneOf }: FaultServerOptions): Promise<FaultServer> {
  let server: Server | undefined
  let port = 0
  const path = `/v2/a/b/blobs/sha256:${blobId}`
  const state: FaultServer = {
    host: '', fault: undefined, gate: undefined, hit: { demand: 0, prefetch: 0 }, requests: { demand: 0, prefetch: 0, other: 0 }, authorizations: new Set(), sentBytes: 0,
    async start() {
      server = createServer(serve)
      await new Promise<void>((resolve) => { server!.listen(port, '127.0.0.1', resolve) })
      port = (server.address() as AddressInfo).port
      Object.assign(state, { host: `127.0.0.1:${port}` })
    },
    async stop() {
      server?.closeAllConnections()
      await new Promise((resolve) => { if (server?.listening) server.close(resolve); else resolve(undefined) })
    },
    async [Symbol.asyncDispose]() { await state.stop() },
  }

  function serve(request: IncomingMessage, response: ServerResponse): void {
    response.on('error', () => {})
    if (state.gate?.(request, response)) return
    state.authorizations.add(request.headers.authorization)
    const [url] = (request.url ?? '').split('?')
    const range = rangeOf(request)
    if (url !== path) { response.writeHead(404).end(); return }
    if (request.method === 'HEAD' || range === undefined) { response.writeHead(200, { 'content-length': blob.length }).end(request.method === 'HEAD' ? undefined : blob); return }
    const [offset, end] = [range.from, Math.min(range.to, blob.length - 1)]
    const bytes = blob.subarray(offset, end + 1)
    const lane = laneOf(range)
    state.requests[lane]++
    const right = (other = bytes): void => {
      Object.assign(state, { sentBytes: state.sentBytes + other.length })
      response.writeHead(206, { 'content-range': `bytes ${offset}-${end}/${blob.length}`, 'content-length': other.length }).end(other)
    }
    if (state.fault === undefined || lane === 'other') { right(); return }
    state.hit[lane]++
    state.fault({ request, response, bytes, offset, size: blob.length, right })
  }

  await state.start()
  return state
}

/** The faults of a server, by name. Those of a network around it are in the test. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  401: ({ response }) => void response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(),
  403: ({ response }) => void response.writeHead(403).end(),
  404: ({ response }) => void response.writeHead(404).end(),
  429: ({ response }) => void response.writeHead(429, { 'retry-after': '1' }).end(),
  500: ({ response }) => void response.writeHead(500).end('sorry'),
  503: ({ response }) => void response.writeHead(503).end(),
  'a short body': ({ response, bytes, offset, size }) => {
    response.writeHead(206, { 'content-range': `bytes ${offset}-${offset + bytes.length - 1}/${size}` }).end(bytes.subarray(0, bytes.length >> 1))
  },
  'a long body': ({ response, bytes, offset, size }) => {
    response.writeHead(206, { 'content-range': `bytes ${offset}-${offset + bytes.length - 1}/${size}` }).end(Buffer.concat([bytes, bytes]))
  },
  'another range': ({ response, bytes, offset, size }) => {
    response.writeHead(206, { 'content-range': `bytes ${offset + 1}-${offset + bytes.length}/${size}`, 'content-length': bytes.length }).end(bytes)
  },
  'corrupt bodies': ({ bytes, right }) => right(flipped(bytes)),
  'a reset in the middle': ({ request, response, bytes, offset, size }) => {
    response.writeHead(206, { 'content-range': `bytes ${offset}-${offset + bytes.length - 1}/${size}`, 'content-length': bytes.length })
    response.write(bytes.subarray(0, bytes.length >> 1), () => setTimeout(() => request.socket.resetAndDestroy(), 5))
  },
  'an answer that never comes': () => {},
  'a byte a second': ({ response, bytes, offset, size }) => {
    response.writeHead(206, { 'content-range': `bytes ${offset}-${offset + bytes.length - 1}/${size}`, 'content-length': bytes.length })
    let at = 0
    const timer = setInterval(() => { if (response.destroyed) clearInterval(timer); else response.write(bytes.subarray(at, ++at)) }, 1000)
    response.on('close', () => clearInterval(timer))
  },
  'a redirect to a name that does not resolve': ({ request, response }) => void response.writeHead(307, { location: `http://nowhere.invalid${request.url}` }).end(),
  'a redirect loop': ({ request, response }) => void response.writeHead(307, { location: `${request.url}` }).end(),
}

function flipped(bytes: Buffer): Buffer {
  const wrong = Buffer.from(bytes)
  for (let at = 0; at < wrong.length; at += 997) wrong[at]! ^= 0x20
  return wrong
}

// Blobs at FOLDER/ID of a plain HTTP server, over TCP or a Unix socket.

import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ServeBlobsOptions {
  readonly folder: string
  /** Of a Unix socket, instead of a port. */
  readonly socket?: string
  /** What requests must carry. */
  readonly authorization?: string
  readonly ignoreRanges?: boolean
  /** Sees each request; true when it has answered it. */
  readonly gate?: (exchange: { readonly request: IncomingMessage; readonly response: import('node:http').ServerResponse }) => boolean
}

export interface BlobServer extends AsyncDisposable { readonly host: string; readonly seen: readonly IncomingMessage[] }

export async function serveBlobs(blobs: ReadonlyMap<string, Uint8Array>, { folder, socket, authorization, ignoreRanges = false, gate }: ServeBlobsOptions): Promise<BlobServer> {
  const seen: IncomingMessage[] = []
  const server = createServer((request, response) => {
    seen.push(request)
    if (gate?.({ request, response })) return
    const content = request.url?.startsWith(`${folder}/`) ? blobs.get(request.url.slice(folder.length + 1)) : undefined
    if (authorization !== undefined && request.headers.authorization !== authorization) { response.writeHead(401).end(); return }
    if (content === undefined) { response.writeHead(404).end(); return }
    const range = ignoreRanges ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    if (range === null) { response.writeHead(200, { 'content-length': content.length }).end(request.method === 'HEAD' ? undefined : content); return }
    const [from, to] = [Number(range[1]), Math.min(Number(range[2]), content.length - 1)]
    if (from >= content.length) { response.writeHead(416).end(); return }
    response.writeHead(206, { 'content-range': `bytes ${from}-${to}/${content.length}`, 'content-length': to - from + 1 }).end(content.subarray(from, to + 1))
  })
  await new Promise<void>((resolve) => { if (socket === undefined) server.listen(0, '127.0.0.1', resolve); else server.listen(socket, resolve) })
  const address = server.address()
  return {
    host: typeof address === 'object' && address !== null ? `127.0.0.1:${(address as AddressInfo).port}` : '', seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => { server.close(resolve) })
    },
  }
}

// What OSS is to a reader: objects with ranges, requests whose signature its own client library (ali-oss) computes.

import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'

export const OSS_KEY = { accessKeyId: 'oss-id', accessKeySecret: 'oss secret/+' }

interface SignUtils {
  buildCanonicalString(method: string, resource: string, request: { readonly headers: object }): string
  authorization(id: string, secret: string, canonical: string): string
}

export interface OssServer extends AsyncDisposable { readonly endpoint: string; readonly signed: number; readonly refused: number }

/** `clockAheadMs`: what its clock is ahead of this machine's; signatures more than 15 minutes away from it are refused. */
export async function startOss({ bucket, objects, clockAheadMs = 0 }: { readonly bucket: string; readonly objects: ReadonlyMap<string, Uint8Array>; readonly clockAheadMs?: number }): Promise<OssServer> {
  const library = createRequire(import.meta.url)('ali-oss/lib/common/signUtils') as SignUtils
  let [signed, refused] = [0, 0]
  const server = createServer((request, response) => {
    const now = new Date(Date.now() + clockAheadMs)
    response.setHeader('date', now.toUTCString())
    const refuse = (status: number, code: string): void => void response.writeHead(status).end(`<Error><Code>${code}</Code></Error>`)
    const resource = decodeURIComponent(request.url ?? '')
    const date = request.headers.date ?? ''
    const canonical = library.buildCanonicalString(request.method ?? '', resource, { headers: { 'content-type': '', 'x-oss-date': date } }).replace(`\nx-oss-date:${date}`, '')
    if (request.headers.authorization !== library.authorization(OSS_KEY.accessKeyId, OSS_KEY.accessKeySecret, canonical)) { refused++; refuse(403, 'SignatureDoesNotMatch'); return }
    if (Math.abs(Date.parse(date) - now.getTime()) > 15 * 60_000) { refused++; refuse(403, 'RequestTimeTooSkewed'); return }
    signed++
    const content = resource.startsWith(`/${bucket}/`) ? objects.get(resource.slice(bucket.length + 2)) : undefined
    if (content === undefined) { refuse(404, 'NoSuchKey'); return }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    if (request.method === 'HEAD' || range === null) { response.writeHead(200, { 'content-length': content.length }).end(request.method === 'HEAD' ? undefined : content); return }
    const [from, to] = [Number(range[1]), Math.min(Number(range[2]), content.length - 1)]
    // SPEC: OSS GetObject: a range that leaves the object is answered with the whole of it
    if (from >= content.length || Number(range[2]) >= content.length) { response.writeHead(200, { 'content-length': content.length }).end(content); return }
    response.writeHead(206, { 'content-range': `bytes ${from}-${to}/${content.length}`, 'content-length': to - from + 1 }).end(content.subarray(from, to + 1))
  })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  return {
    endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get signed() { return signed },
    get refused() { return refused },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => { server.close(resolve) })
    },
  }
}

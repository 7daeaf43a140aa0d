// An S3 server from npm (s3rver) behind a gate that verifies signatures with another implementation (aws4): s3rver itself checks the shape of version 4 only.

import { createServer, request as httpRequest, type IncomingMessage } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'

export const S3_KEY = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' } // the only pair that s3rver knows
export const S3_REGION = 'eu-test-1'

interface Signer { sign(request: object, credentials: typeof S3_KEY): { readonly headers: Readonly<Record<string, string>> } }
interface Rver { run(): Promise<AddressInfo>; close(): Promise<void> }

export interface S3Server extends AsyncDisposable {
  /** HOST:PORT. */
  readonly endpoint: string
  /** Requests whose signature aws4 computes the same, and others. */
  readonly signed: number
  readonly refused: number
}

/** Starts one with its data below `directory` and `objects` in `bucket`. */
export async function startS3(directory: string, { bucket, objects }: { readonly bucket: string; readonly objects: ReadonlyMap<string, Uint8Array> }): Promise<S3Server> {
  const require = createRequire(import.meta.url)
  const S3rver = require('s3rver') as new (options: object) => Rver
  const aws4 = require('aws4') as Signer
  const inner = new S3rver({ port: 0, address: '127.0.0.1', silent: true, directory, configureBuckets: [{ name: bucket }] })
  const { port } = await inner.run()
  let [signed, refused] = [0, 0]
  const gate = createServer((request, response) => {
    if (expectedSignature(aws4, request) !== request.headers.authorization) {
      refused++
      response.writeHead(403, { 'content-type': 'application/xml' }).end(`<Error><Code>SignatureDoesNotMatch</Code><StringToSign>${request.headers.authorization}</StringToSign></Error>`)
      return
    }
    signed++
    const onward = httpRequest({ host: '127.0.0.1', port, method: request.method, path: request.url, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => { gate.listen(0, '127.0.0.1', resolve) })
  for (const [key, content] of objects) await put(`http://127.0.0.1:${port}/${bucket}/${key}`, content)
  return {
    endpoint: `127.0.0.1:${(gate.address() as AddressInfo).port}`,
    get signed() { return signed },
    get refused() { return refused },
    async [Symbol.asyncDispose]() {
      gate.closeAllConnections()
      await new Promise((resolve) => { gate.close(resolve) })
      await inner.close()
    },
  }
}

function expectedSignature(aws4: Signer, { method, url, headers }: IncomingMessage): string | undefined {
  const names = /SignedHeaders=([^,]+)/.exec(headers.authorization ?? '')?.[1]?.split(';') ?? []
  const kept = Object.fromEntries(names.map((name) => [name, String(headers[name] ?? '')]))
  return aws4.sign({ service: 's3', region: S3_REGION, method, path: url, headers: kept }, S3_KEY).headers['Authorization']
}

async function put(url: string, content: Uint8Array): Promise<void> {
  const answer = await fetch(url, { method: 'PUT', body: Buffer.from(content) })
  if (!answer.ok) throw new Error(`put ${url}: ${answer.status} ${await answer.text()}`)
}

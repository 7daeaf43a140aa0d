// How the embedded registry answers. SPEC: distribution-spec v1.1 "Error Codes".

import type { ServerResponse } from 'node:http'
import { hasCode, isCoded } from '../../core/errors.ts'

/** An answer that is an error of the specification; thrown by handlers, sent by the server. */
export class Refusal extends Error {
  readonly status: number
  readonly code: string
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

/** Any failure of a handler as a refusal; paths and internals stay inside. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (hasCode(error, 'REGISTRY_NOT_FOUND')) return new Refusal(404, 'BLOB_UNKNOWN', 'not in this layout')
  if (hasCode(error, 'REGISTRY_DIGEST_MISMATCH')) return new Refusal(400, 'DIGEST_INVALID', error.message)
  if (hasCode(error, 'REGISTRY_PROTOCOL') || hasCode(error, 'FORMAT_INVALID')) return new Refusal(400, 'MANIFEST_INVALID', error.message)
  return new Refusal(500, 'UNKNOWN', isCoded(error) ? error.code : 'internal error')
}

/** Sends the specification's error document; the status that was sent. */
export function sendRefusal(response: ServerResponse, refusal: Refusal): number {
  return sendJson(response, { errors: [{ code: refusal.code, message: refusal.message }] }, { status: refusal.status, headers: refusal.headers })
}

/** Sends `value`; the bytes of its body. */
export function sendJson(response: ServerResponse, value: unknown, { status = 200, headers = {} }: { status?: number; headers?: Readonly<Record<string, string>> } = {}): number {
  return sendBytes(response, Buffer.from(JSON.stringify(value)), { status, headers: { 'content-type': 'application/json', ...headers } })
}

/** Sends a whole small body (HEAD: its headers only); the bytes of it that were sent. */
export function sendBytes(response: ServerResponse, bytes: Uint8Array, { status, headers }: { status: number; headers: Readonly<Record<string, string>> }): number {
  const body = response.req.method === 'HEAD' ? undefined : bytes
  response.writeHead(status, { 'content-length': bytes.length, ...headers })
  response.end(body)
  return body?.length ?? 0
}

// Upload sessions. SPEC: distribution-spec v1.1 "Pushing blobs": POST → Location, PATCH pieces or one PUT with everything, PUT ?digest=.
//
//   POST uploads/ ──202──► [PATCH piece]* ──► PUT ?digest=     after a broken piece: GET Location → Range → go on there
//        └──201 (mounted)                                      refused pieces: everything in one PUT

import { CodedError, hasCode } from '../../core/errors.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { redactUrl } from '../http/redact.ts'
import { backoffMs, sleep } from '../http/retry.ts'
import type { HttpRequest, HttpResponse } from '../http/transport.ts'
import { pullScope, type Call, type RegistryClient } from './registry-client.ts'

/** LIMIT: a registry hashes (and often moves) the whole blob before it answers the last PUT; 20 GiB at 50 MB/s take 7 minutes. */
const COMMIT_TIMEOUT_MS = 10 * 60_000

/** Answers that mean "not in pieces", as opposed to "not you" or "not now". */
const PIECES_REFUSED: ReadonlySet<number> = new Set([400, 404, 405, 411, 415, 416, 501])

export interface Session { url: URL; offset: number }

/** Begins an upload; `undefined` when `mount` succeeded and there is nothing to upload. */
export async function openUpload(client: RegistryClient, { mount, signal }: { mount?: { digest: Digest; from: string }; signal: AbortSignal }): Promise<Session | undefined> {
  const query = mount === undefined ? '' : `?${new URLSearchParams({ mount: mount.digest, from: mount.from })}`
  const response = await client.call({
    method: 'POST', target: `blobs/uploads/${query}`, headers: { 'content-length': '0' }, signal,
    accept: mount === undefined ? [202] : [201, 202], ...(mount === undefined ? {} : { scopes: [pullScope(mount.from)] }),
  })
  await response.discard()
  if (response.status === 201) return undefined
  return { url: client.resolveLocation(response.header('location'), response.url), offset: 0 }
}

/** Gives up a session; a registry that does not know how forgets it by itself. */
export async function cancelUpload(client: RegistryClient, session: Session, signal: AbortSignal): Promise<void> {
  try {
    await (await client.call({ method: 'DELETE', target: session.url, accept: [200, 202, 204, 404, 405], attempts: 1, signal })).discard()
  } catch {
    // only politeness: the failure that led here is what the caller reports
  }
}

/** Bytes of a piece from its `skip`-th on. */
export type Piece = { readonly length: number; readonly from: (skip: number) => NonNullable<HttpRequest['body']> }

/**
 * Sends one piece at the session's offset, which it moves. Broken connections and 5xx are repeated from where the registry says it is.
 * False when the registry refuses pieces (then the session is of no more use); errors as `RegistryClient.call`.
 */
export async function sendPiece(client: RegistryClient, session: Session, piece: Piece, signal: AbortSignal): Promise<boolean> {
  const start = session.offset
  const end = start + piece.length
  for (let attempt = 1; ; attempt++) {
    const skip = session.offset - start
    try {
      const response = await patch(client, session, { piece, skip, end, signal })
      if (response.status !== 202 && response.status !== 201 && response.status !== 204) {
        await response.discard()
        return false
      }
      await response.discard()
      const location = response.header('location')
      if (location !== undefined) session.url = client.resolveLocation(location, response.url)
      session.offset = endOf(response) ?? end
    } catch (error) {
      if (!hasCode(error, 'REGISTRY_UNREACHABLE') || attempt >= client.retry.attempts) throw error
      await sleep(backoffMs(client.retry, attempt + 1), signal)
      if (!await resync(client, session, signal)) return false
    }
    if (session.offset < start || session.offset > end) return false // it lost bytes that are gone, or counts differently
    if (session.offset === end) return true
  }
}

/** The last PUT: with `body` everything (monolithic), without it only the digest. REGISTRY_DIGEST_MISMATCH when the registry disagrees. */
export async function closeUpload(client: RegistryClient, session: Session, close: { digest: Digest; body?: { length: number; make: () => NonNullable<HttpRequest['body']> }; signal: AbortSignal }): Promise<void> {
  const { digest, body, signal } = close
  const url = new URL(session.url)
  // appended as text: the query is signed or encoded in ways that must come back as they went
  url.search = `${url.search === '' ? '?' : `${url.search}&`}digest=${encodeURIComponent(digest)}`
  try {
    const response = await client.call({
      method: 'PUT', target: url, accept: [201, 204], signal, headersTimeoutMs: COMMIT_TIMEOUT_MS,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(body?.length ?? 0) },
      // a session that saw half a body cannot be PUT again: the caller opens a new one
      ...(body === undefined ? {} : { body: body.make, attempts: 1 }),
    })
    await response.discard()
  } catch (error) {
    if (hasCode(error, 'REGISTRY_PROTOCOL') && /DIGEST_INVALID/.test(error.message)) {
      throw new CodedError('REGISTRY_DIGEST_MISMATCH', `${redactUrl(url)}: the registry computed another digest`, { digest }, { cause: error })
    }
    throw error
  }
}

function patch(client: RegistryClient, session: Session, { piece, skip, end, signal }: { piece: Piece; skip: number; end: number; signal: AbortSignal }): Promise<HttpResponse> {
  const call: Call = {
    method: 'PATCH', target: session.url, signal, attempts: 1, accept: [201, 202, 204, ...PIECES_REFUSED], body: () => piece.from(skip),
    headers: {
      'content-type': 'application/octet-stream', 'content-length': String(piece.length - skip),
      'content-range': `${session.offset}-${end - 1}`,
    },
  }
  return client.call(call)
}

/** Where the registry's copy ends now. False when it does not know the session any more. */
async function resync(client: RegistryClient, session: Session, signal: AbortSignal): Promise<boolean> {
  const response = await client.call({ method: 'GET', target: session.url, accept: [200, 202, 204, 400, 404, 405], signal })
  await response.discard()
  if (response.status >= 400) return false
  const location = response.header('location')
  if (location !== undefined) session.url = client.resolveLocation(location, response.url)
  session.offset = endOf(response) ?? 0
  return true
}

/** `Range: 0-LAST` → LAST + 1. COMPAT: docker-registry says 0-0 both for nothing and for one byte; an empty session is the likelier. */
function endOf(response: HttpResponse): number | undefined {
  const last = /^(?:bytes=)?0-(\d+)$/.exec(response.header('range') ?? '')?.[1]
  return last === undefined ? undefined : last === '0' ? 0 : Number(last) + 1
}

// Reading manifests and blobs from a registry. Blobs are resumed by Range when a connection breaks in the middle.

import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import type { Descriptor } from '../../format/oci/descriptor.ts'
import { isDigest, splitDigest, type Digest } from '../../format/oci/digest.ts'
import { MANIFEST_ACCEPT, MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { digestOf, exactly, MAX_MANIFEST_SIZE, mismatch, rangeOf, verified } from '../content.ts'
import { redactUrl } from '../http/redact.ts'
import { backoffMs, sleep } from '../http/retry.ts'
import type { HttpResponse } from '../http/transport.ts'
import { manifestTypeOf } from '../manifest-type.ts'
import type { BlobRange, Fetched, Signal } from '../types.ts'
import type { RegistryClient } from './registry-client.ts'

/** A connection that brought this much was a good one: the count of failures starts again. */
const PROGRESS_BYTES = 256 * KiB

/** Schema 1 last, so that it is refused by name instead of as "not found". */
const ACCEPT = [...MANIFEST_ACCEPT, MEDIA_TYPE.dockerSchema1Signed, '*/*;q=0.1'].join(', ')

/**
 * The manifest or index called `name` (a tag or a digest). REGISTRY_NOT_FOUND; REGISTRY_DIGEST_MISMATCH when its bytes are not those of the
 * digest asked for or announced; REGISTRY_PROTOCOL beyond 4 MiB or when its kind is ambiguous.
 */
export async function fetchManifest(client: RegistryClient, name: string, { signal }: Signal): Promise<Fetched> {
  const response = await client.call({ method: 'GET', target: `manifests/${name}`, headers: { accept: ACCEPT }, accept: [200], signal })
  const bytes = await response.bytes(MAX_MANIFEST_SIZE)
  const what = `${client.address.host}/${client.address.repository} ${name}`
  const announced = response.header('docker-content-digest')
  const digest = checkedDigest(bytes, name, announced, what)
  return { descriptor: { mediaType: manifestTypeOf(bytes, response.header('content-type'), what), digest, size: bytes.length }, bytes }
}

/** As `fetchManifest`, but undefined when there is none. */
export async function findManifest(client: RegistryClient, name: string, options: Signal): Promise<Fetched | undefined> {
  try {
    return await fetchManifest(client, name, options)
  } catch (error) {
    if (hasCode(error, 'REGISTRY_NOT_FOUND')) return undefined
    throw error
  }
}

/** Whether `path` (`blobs/…`, `manifests/…`) exists; asks by GET where HEAD is refused. */
export async function existsAt(client: RegistryClient, path: string, { signal }: Signal): Promise<boolean> {
  const headers = { accept: ACCEPT }
  const head = await client.call({ method: 'HEAD', target: path, headers, accept: [200, 404, 400, 405, 501], signal })
  await head.discard()
  if (head.status === 200) return true
  if (head.status === 404) return false
  const get = await client.call({ method: 'GET', target: path, headers: { ...headers, range: 'bytes=0-0' }, accept: [200, 206, 404, 416], signal })
  await get.discard()
  return get.status !== 404
}

/** See ImageSource.openBlob. */
export function openBlob(client: RegistryClient, descriptor: Descriptor, options: BlobRange): AsyncIterable<Uint8Array> {
  const range = rangeOf(descriptor, options)
  if (range.whole) return verified(resumed(client, descriptor, { ...range, signal: options.signal }), descriptor)
  return exactly(resumed(client, descriptor, { ...range, signal: options.signal }), { what: descriptor.digest, length: range.length })
}

/** Checks that a 206 is the range asked for. REGISTRY_PROTOCOL otherwise. SPEC: RFC 9110 14.4. */
function checkContentRange(response: HttpResponse, offset: number): void {
  const header = response.header('content-range')
  const start = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(header ?? '')?.[1]
  if (start === undefined || Number(start) !== offset) {
    throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(response.url)}: asked for bytes from ${offset}, got Content-Range "${header?.slice(0, 80) ?? ''}"`)
  }
}

export interface ResumeOptions extends Signal {
  readonly offset: number
  readonly length: number
  /** Bytes that may be thrown away when a server ignores Range; default any number, which a pull of a whole blob has to read anyway. */
  readonly maxSkipped?: number
  /** Nobody waits for it. */
  readonly prefetch?: boolean
}

/**
 * Bytes offset … offset+length of a blob of `size` bytes, over as many connections as it takes. Reads of whole blobs may yield more
 * or less than announced: `verified` judges them.
 */
export async function* resumed(client: RegistryClient, { digest, size }: Pick<Descriptor, 'digest' | 'size'>, options: ResumeOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const { signal } = options
  const end = options.offset + options.length
  const whole = options.offset === 0 && options.length === size
  let position = options.offset
  if (options.length === 0 && !whole) return
  for (let failures = 0; ; ) {
    const startedAt = position
    const headers: Record<string, string> = whole && position === 0 ? {} : { range: `bytes=${position}-${end - 1}` }
    // outside of `try`: until an answer begins, `call` has repeated it often enough
    const response = await client.getBlob(`blobs/${digest}`, { headers, signal, prefetch: options.prefetch === true })
    if (response.status === 416) {
      await response.discard()
      throw mismatch(digest, `bytes ${position} to ${end}`, 'a shorter blob')
    }
    try {
      const length = whole ? Number.POSITIVE_INFINITY : end - position
      for await (const chunk of fromPosition(response, position, { length, maxSkipped: options.maxSkipped ?? Number.POSITIVE_INFINITY })) {
        position += chunk.length
        yield chunk
      }
      if (position >= end) return
      // a body that ends early without an error: some proxies cut like that
      throw new CodedError('REGISTRY_UNREACHABLE', `${digest}: body ended ${end - position} bytes early`, { reason: 'short body' })
    } catch (error) {
      if (!hasCode(error, 'REGISTRY_UNREACHABLE')) throw error
      if (position >= end) return // everything came, only the end of the message did not
      failures = position - startedAt >= PROGRESS_BYTES ? 1 : failures + 1
      if (failures >= client.retry.attempts) throw error
      const delayMs = backoffMs(client.retry, failures + 1)
      publish('registry:request:retry', { method: 'GET', url: redactUrl(response.url), reason: String(error.context['reason']), delayMs })
      await sleep(delayMs, signal)
    }
  }
}

/** `length` bytes from `position` of the blob: a 206 begins there, a 200 begins at 0 and is read up to it. */
async function* fromPosition(response: HttpResponse, position: number, { length, maxSkipped }: { length: number; maxSkipped: number }): AsyncGenerator<Uint8Array, void, undefined> {
  let skip = response.status === 206 ? 0 : position
  try {
    if (response.status === 206) checkContentRange(response, position)
  } catch (error) {
    await response.discard() // else its connection would never be free again
    throw error
  }
  if (skip > maxSkipped) {
    await response.discard()
    throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(response.url)} ignores Range requests`, { position })
  }
  // a body that announces its exact end is read to that end, so that its connection can be used again
  const ends = response.header('content-length') === `${length}`
  let left = length
  for await (const chunk of response.body()) {
    const from = Math.min(skip, chunk.length)
    skip -= from
    const part = chunk.subarray(from, Math.min(chunk.length, from + left))
    left -= part.length
    if (part.length > 0) yield part
    if (left === 0 && !ends) return
  }
}

function checkedDigest(bytes: Uint8Array, name: string, announced: string | undefined, what: string): Digest {
  for (const want of [name, announced]) {
    if (want === undefined || !isDigest(want)) continue
    const got = digestOf(bytes, splitDigest(want).algorithm)
    if (got !== want) throw mismatch(what, want, got)
  }
  return isDigest(name) ? name : digestOf(bytes)
}

// Random reads of one repository's blobs, for lazy pulling: `readRange` gives exactly the bytes asked for, or an error.
// The storage layer's registry backend gets this passed in; retries beyond a request's own belong to it.

import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { isDigest, type Digest } from '../../format/oci/digest.ts'
import { decodeBasic, type Credentials } from '../auth/credentials.ts'
import type { ProxyChoice } from '../http/proxy.ts'
import { redactUrl } from '../http/redact.ts'
import { existsAt, resumed } from './pull.ts'
import { RegistryClient, type RegistryOptions, type RepositoryAddress } from './registry-client.ts'

/** LIMIT: bytes thrown away when a server ignores Range; reading the head of a blob once is cheaper than failing, reading GiB for each chunk is not. */
const MAX_SKIPPED = 16 * MiB

export interface RangeOptions {
  readonly length: number
  readonly signal: AbortSignal
  /** Nobody waits for it. */
  readonly prefetch?: boolean
  /** What this range was answered with before was wrong. */
  readonly afterWrong?: boolean
  /** Called as bytes come: `buffer` is what the call resolves to, [0, filled) are there. What it returns is awaited before more is read. */
  readonly progress?: (buffer: Uint8Array, filled: number) => Promise<void> | undefined
  /** `length` bytes for the result; default new ones. */
  readonly allocate?: (length: number) => Uint8Array
}

export interface RangeFetcher extends AsyncDisposable {
  /**
   * Bytes offset … offset+length of a blob. REGISTRY_NOT_FOUND, REGISTRY_DENIED, REGISTRY_UNREACHABLE; REGISTRY_DIGEST_MISMATCH when the
   * blob ends before; REGISTRY_PROTOCOL when the server answers another range, or ignores ranges far into a blob.
   */
  readRange(digest: Digest, offset: number, options: RangeOptions): Promise<Uint8Array>
  /** The blob's size in bytes, from a HEAD or the Content-Range of its first byte. */
  blobSize(digest: Digest, options: { readonly signal: AbortSignal }): Promise<number>
  exists(digest: Digest, options: { readonly signal: AbortSignal }): Promise<boolean>
  /** Other credentials from now on. */
  useCredentials(credentials: Credentials | undefined): void
  /** `registryAuth`: base64 of user:password, empty to look in docker's files again. `proxyUrl`: empty for none. CONFIG_INVALID. */
  reconfigure(change: { readonly registryAuth?: string; readonly proxyUrl?: string }): void
}

/** What a proxy that is named at run time is like. */
const PROXY_DEFAULTS: Omit<ProxyChoice, 'url'> = { pingUrl: undefined, fallback: true, checkIntervalMs: 5000, checkPauseMs: 300_000, useHttp: false }

/** A fetcher for the blobs of `address.repository`. Owns its connections: dispose it. */
export function createRangeFetcher(address: RepositoryAddress, options: RegistryOptions = {}): RangeFetcher {
  const client = new RegistryClient(address, { ...options, access: 'pull' })
  return {
    readRange: (digest, offset, range) => readRange(client, digest, offset, range),
    blobSize: (digest, { signal }) => blobSize(client, digest, signal),
    exists: (digest, { signal }) => existsAt(client, pathOf(digest), { signal }),
    useCredentials: (credentials) => client.useCredentials(credentials),
    reconfigure({ registryAuth, proxyUrl }) {
      const credentials = registryAuth === undefined || registryAuth === '' ? undefined : decodeBasic(registryAuth)
      if (registryAuth !== undefined && registryAuth !== '' && credentials === undefined) throw new CodedError('CONFIG_INVALID', 'registry_auth must be base64 of user:password', { key: 'registry_auth' })
      if (proxyUrl !== undefined && proxyUrl !== '' && !/^https?:$/.test(URL.canParse(proxyUrl) ? new URL(proxyUrl).protocol : '')) throw new CodedError('CONFIG_INVALID', 'proxy_url must be an http:// or https:// address', { key: 'proxy_url' })
      if (credentials !== undefined) client.useCredentials(credentials)
      else if (registryAuth !== undefined) client.lookUpCredentials()
      if (proxyUrl !== undefined) client.useProxy(proxyUrl === '' ? undefined : { ...PROXY_DEFAULTS, ...options.proxy, url: proxyUrl })
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

async function readRange(client: RegistryClient, digest: Digest, offset: number, { length, signal, prefetch = false, progress, allocate = (size) => Buffer.allocUnsafeSlow(size) }: RangeOptions): Promise<Uint8Array> {
  pathOf(digest)
  const bytes = allocate(length)
  let filled = 0
  // the size is not known here, and not needed: a range is never taken for the whole blob
  for await (const chunk of resumed(client, { digest, size: Number.POSITIVE_INFINITY }, { offset, length, maxSkipped: MAX_SKIPPED, prefetch, signal })) {
    bytes.set(chunk, filled)
    filled += chunk.length
    await progress?.(bytes, filled)
  }
  return bytes
}

async function blobSize(client: RegistryClient, digest: Digest, signal: AbortSignal): Promise<number> {
  const head = await client.call({ method: 'HEAD', target: pathOf(digest), accept: [200, 400, 405, 501], signal })
  await head.discard()
  const length = head.status === 200 ? Number(head.header('content-length') ?? Number.NaN) : Number.NaN
  if (Number.isSafeInteger(length)) return length
  const get = await client.getBlob(pathOf(digest), { headers: { range: 'bytes=0-0' }, signal })
  await get.discard()
  const total = Number(/\/(\d+)$/.exec(get.header('content-range') ?? '')?.[1] ?? (get.status === 200 ? get.header('content-length') : undefined) ?? Number.NaN)
  if (!Number.isSafeInteger(total)) throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(get.url)} does not say how long the blob is`)
  return total
}

/** Blob ids come from bootstraps that strangers made; they become part of a URL here. */
function pathOf(digest: Digest): string {
  if (!isDigest(digest)) throw new CodedError('REGISTRY_BAD_REFERENCE', 'a blob id that is no digest')
  return `blobs/${digest}`
}

// Blobs behind plain HTTP: a GET with a Range for each read. What differs from server to server (addresses, signatures) is passed in, and so is the
// client, because storage and registry are siblings that never meet.

import { CodedError, foreignText, type ErrorCode } from '../../core/errors.ts'
import { retryAfterMs } from '../../core/retry-after.ts'
import { KiB, MiB } from '../../core/units.ts'
import { rethrowAsStorage } from './as-storage.ts'
import { newBuffer, type BlobBackend, type BlobReader, type ReadOptions } from './backend.ts'

export interface HttpExchange {
  readonly method: 'GET' | 'HEAD'
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  /** Nobody waits for the answer. */
  readonly prefetch: boolean
  readonly signal: AbortSignal
}

export interface HttpAnswer {
  readonly status: number
  header(name: string): string | undefined
  body(): AsyncIterable<Uint8Array>
  bytes(limit: number): Promise<Uint8Array>
  discard(): Promise<void>
}

/** `Transport` of src/registry, as far as it is used here. */
export interface HttpClient extends AsyncDisposable {
  request(exchange: HttpExchange): Promise<HttpAnswer>
}

/** One kind of server. */
export interface HttpServer {
  readonly type: string
  /** Where the blob is. */
  urlOf(blobId: string): URL
  /** Headers that prove who asks; `at` is the time at the server. */
  sign?(request: { readonly method: 'GET' | 'HEAD'; readonly url: URL; readonly at: Date }): Readonly<Record<string, string>>
  /** The time here; default the machine's. */
  now?(): Date
}

/** LIMIT: bytes thrown away when a server ignores Range: reading the head of a blob once is cheaper than failing, reading GiB for each chunk is not. */
const MAX_SKIPPED = 16 * MiB
/** LIMIT: of a refusal, what is looked at. */
const MAX_REFUSAL = 64 * KiB
/** LIMIT: servers refuse signatures that are 15 minutes away from their time; what is nearer is not the clock's fault. */
const MIN_SKEW_MS = 60_000

/** Reads blobs of `server` through `client`, which it owns. */
export class HttpBackend implements BlobBackend {
  readonly type: string
  readonly #server: HttpServer
  readonly #client: HttpClient
  /** What the server's clock is ahead of ours. */
  #skewMs = 0

  constructor(server: HttpServer, client: HttpClient) {
    this.type = server.type
    this.#server = server
    this.#client = client
  }

  open(blobId: string): BlobReader {
    return {
      size: (options) => this.#size(blobId, options).catch(rethrowAsStorage),
      read: (offset, length, options) => this.#read(blobId, offset, { ...options, length }).catch(rethrowAsStorage),
    }
  }

  async close(): Promise<void> {
    await this.#client[Symbol.asyncDispose]()
  }

  async #size(blobId: string, { signal }: { readonly signal: AbortSignal }): Promise<number> {
    const answer = await this.#ask('HEAD', blobId, { signal })
    await answer.discard()
    const size = Number(answer.header('content-length') ?? Number.NaN)
    if (!Number.isSafeInteger(size)) throw new CodedError('STORAGE_SHORT_READ', `the server does not say how long blob ${blobId} is`, { blobId })
    return size
  }

  async #read(blobId: string, offset: number, { length, progress, allocate = newBuffer, ...options }: ReadOptions & { readonly length: number }): Promise<Uint8Array> {
    const answer = await this.#ask('GET', blobId, { ...options, range: `bytes=${offset}-${offset + length - 1}` })
    const wrong = async (what: string): Promise<never> => {
      await answer.discard()
      throw new CodedError('STORAGE_SHORT_READ', `blob ${blobId}: asked for ${length} bytes from ${offset}, got ${what}`, { blobId, offset, length })
    }
    if (answer.status === 416) return await wrong('the answer that it is shorter')
    let skip = answer.status === 206 ? 0 : offset
    const range = answer.header('content-range') ?? ''
    const [from, to] = /^bytes (\d+)-(\d+)\//.exec(range)?.slice(1).map(Number) ?? []
    const isExact = from === offset && to === offset + length - 1
    // a server may send more than was asked for, but it must begin there
    if (answer.status === 206 && !(from === offset && to! >= offset + length - 1)) return await wrong(`the range "${foreignText(range, 80)}"`)
    if (skip > MAX_SKIPPED) return await wrong('everything: the server ignores ranges')
    const bytes = allocate(length)
    let filled = 0
    for await (const part of answer.body()) {
      const skipped = Math.min(skip, part.length)
      skip -= skipped
      const rest = part.subarray(skipped, skipped + length - filled)
      bytes.set(rest, filled)
      filled += rest.length
      await progress?.(bytes, filled)
      if (isExact && part.length > rest.length) return await wrong('more')
      if (filled === length && !isExact) return bytes
    }
    return filled === length ? bytes : await wrong(`${filled} bytes`)
  }

  /** An answer of status 200, 206 or 416; STORAGE_* for others. */
  async #ask(method: 'GET' | 'HEAD', blobId: string, { range, prefetch = false, signal }: ReadOptions & { readonly range?: string }): Promise<HttpAnswer> {
    if (blobId === '' || blobId === '.' || blobId === '..' || blobId.includes('/')) throw new CodedError('STORAGE_NOT_FOUND', `"${blobId.slice(0, 80)}" is no blob id`) // it becomes a path
    const url = this.#server.urlOf(blobId)
    const headers = range === undefined ? {} : { range }
    for (let isSecond = false; ; isSecond = true) {
      const at = new Date((this.#server.now?.() ?? new Date()).getTime() + this.#skewMs)
      const answer = await this.#client.request({ method, url, headers: { ...headers, ...this.#server.sign?.({ method, url, at }) }, prefetch, signal })
      if (answer.status === 200 || answer.status === 206 || (answer.status === 416 && method === 'GET')) return answer
      // a signature that is refused is signed once more, by the server's clock
      if (answer.status === 403 && this.#server.sign !== undefined && !isSecond && this.#learnTime(answer.header('date'))) {
        await answer.discard()
        continue
      }
      throw await refusal(answer, `${method} ${url.host}${url.pathname}`)
    }
  }

  #learnTime(date: string | undefined): boolean {
    const skewMs = Date.parse(date ?? '') - (this.#server.now?.() ?? new Date()).getTime()
    if (!Number.isFinite(skewMs) || Math.abs(skewMs - this.#skewMs) < MIN_SKEW_MS) return false
    this.#skewMs = skewMs
    return true
  }
}

async function refusal(answer: HttpAnswer, what: string): Promise<CodedError> {
  const { status } = answer
  // object stores say why in XML, beside the string that was signed: only the code may be shown
  const text = await answer.bytes(MAX_REFUSAL).then((body) => Buffer.from(body).toString('utf8'), () => '')
  const reason = /<Code>([A-Za-z]{1,60})<\/Code>/.exec(text)?.[1]
  const wait = retryAfterMs(answer.header('retry-after'), answer.header('date'))
  return new CodedError(codeOf(status), `${what}: status ${status}${reason === undefined ? '' : ` ${reason}`}`, { status, ...(wait !== undefined && { retryAfterMs: wait }) })
}

function codeOf(status: number): ErrorCode {
  if (status === 404) return 'STORAGE_NOT_FOUND'
  if (status === 401 || status === 403) return 'STORAGE_DENIED'
  return 'STORAGE_UNREACHABLE'
}

// One repository at one registry: every request goes through `call`, which adds credentials, follows redirects (without credentials to
// strangers), waits and repeats. What may be repeated is the caller's decision: a body is a function that makes it anew.

import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode } from '../../core/errors.ts'
import { retryAfterMs } from '../../core/retry-after.ts'
import { SingleFlight } from '../../core/single-flight.ts'
import { Authorizer } from '../auth/authorizer.ts'
import { findCredentials, type Credentials } from '../auth/credentials.ts'
import { redactUrl, scrub } from '../http/redact.ts'
import { backoffMs, DEFAULT_RETRY, MAX_RETRY_AFTER_MS, mayPass, sleep, type RetryPolicy } from '../http/retry.ts'
import { defaultCertificateDirectories } from '../http/tls.ts'
import type { ProxyChoice } from '../http/proxy.ts'
import { Transport, type HttpRequest, type HttpResponse, type Method } from '../http/transport.ts'
import { statusError } from './status-error.ts'

/** LIMIT: registry → CDN is one hop, with a mirror two; more is a loop. */
const MAX_REDIRECTS = 5
/** LIMIT: one 401 teaches the scheme, one tells of an expired token; a third is a refusal. */
const MAX_CHALLENGES = 2
/** LIMIT: remembered CDN addresses; an image has some hundred blobs. */
const MAX_REMEMBERED_REDIRECTS = 1024

/** How to reach a registry. Everything is optional: the defaults are verified TLS and the user's own credentials. */
export interface RegistryOptions {
  /** Plain HTTP, and nothing else. */
  readonly plainHttp?: boolean | undefined
  /** Neither verify certificates nor insist on TLS: HTTPS is tried first, then plain HTTP (upstream's --source-insecure). */
  readonly insecure?: boolean | undefined
  /** PEM bundles to trust besides Node's own roots and those in certs.d. */
  readonly caFiles?: readonly string[] | undefined
  /** Default: docker's and containers' certs.d. */
  readonly certificateDirectories?: readonly string[] | undefined
  /** Instead of looking in docker's and containers' files. */
  readonly credentials?: Credentials | undefined
  /** Where credentials and proxies are looked up; default process.env. */
  readonly env?: NodeJS.ProcessEnv | undefined
  readonly retry?: RetryPolicy | undefined
  /** Until a connection stands (default 15 s), until an answer begins (one minute), silence inside a body (30 s). */
  readonly connectTimeoutMs?: number | undefined
  readonly headersTimeoutMs?: number | undefined
  readonly bodyIdleTimeoutMs?: number | undefined
  /** Instead of the environment's proxies. */
  readonly proxy?: ProxyChoice | undefined
  /** Sent with every request to the registry itself, and to nobody else. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Replaces scheme or host of the addresses to which blobs are redirected (nydusd's blob_url_scheme, blob_redirected_host). */
  readonly blobRedirect?: { readonly scheme?: 'http' | 'https' | undefined; readonly host?: string | undefined } | undefined
}

export interface RepositoryAddress {
  /** Host and optional port to connect to. */
  readonly host: string
  /** The host's name in credential files: docker.io for registry-1.docker.io. */
  readonly credentialHost?: string
  readonly repository: string
  /** What stands before /REPOSITORY in paths; default /v2. */
  readonly apiPath?: string | undefined
  /** SPEC: containerd docs/hosts.md: the registry that a mirror is asked for. */
  readonly namespace?: string | undefined
}

export interface Call {
  readonly method: Method
  /** Below /v2/REPOSITORY/ (`blobs/sha256:…`), or a whole URL that the registry gave (upload locations). */
  readonly target: string | URL
  readonly headers?: Readonly<Record<string, string>>
  /** Called once for each attempt. */
  readonly body?: () => NonNullable<HttpRequest['body']>
  /** Statuses that are an answer; every other one becomes an error. */
  readonly accept: readonly number[]
  /** Scopes besides the client's own (the source of a cross-repository mount). */
  readonly scopes?: readonly string[]
  /** Attempts for this call; default the client's. 1 for callers that repeat on a higher level. */
  readonly attempts?: number
  readonly headersTimeoutMs?: number
  /** Nobody waits for the answer. */
  readonly prefetch?: boolean
  readonly signal: AbortSignal
}

/** Failures of a connection that another attempt will not mend. */
const LASTING_REASONS = /^(ENOTFOUND|EPROTO|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL|HOSTNAME_MISMATCH)/

/** Owns connections, tokens and remembered redirects of one repository. */
export class RegistryClient implements AsyncDisposable {
  readonly address: RepositoryAddress
  readonly retry: RetryPolicy
  readonly #transport: Transport
  readonly #authorizer: Authorizer
  readonly #options: RegistryOptions
  readonly #scope: string
  readonly #bases = new SingleFlight<'base', URL>()
  readonly #redirects = new Map<string, URL>()
  /** Besides the authorizer's: servers and proxies tell in their errors what they were sent. */
  #secrets: readonly string[]
  #base: URL | undefined

  /** `access`: what tokens are asked for. */
  constructor(address: RepositoryAddress, options: RegistryOptions & { readonly access: 'pull' | 'push' }) {
    const env = options.env ?? process.env
    const insecure = options.insecure === true
    this.address = address
    this.#options = options
    this.#secrets = [...Object.values(options.headers ?? {}), ...secretsOf(options.proxy)]
    this.retry = options.retry ?? DEFAULT_RETRY
    this.#scope = pullScope(address.repository) + (options.access === 'push' ? ',push' : '')
    const caFiles = options.caFiles ?? (env['SSL_CERT_FILE'] ? [env['SSL_CERT_FILE']] : [])
    const certificateDirectories = options.certificateDirectories ?? defaultCertificateDirectories(env)
    const { connectTimeoutMs, headersTimeoutMs, bodyIdleTimeoutMs } = options
    this.#transport = new Transport({ caFiles, certificateDirectories, insecure, env, connectTimeoutMs, headersTimeoutMs, bodyIdleTimeoutMs, proxy: options.proxy })
    this.#authorizer = new Authorizer({
      transport: this.#transport, host: address.host, retry: this.retry, allowPlainHttp: insecure || options.plainHttp === true,
      credentials: async (signal) => options.credentials ?? findCredentials(address.credentialHost ?? address.host, address.repository, { env, signal }),
    })
  }

  /** Other credentials from now on (nydusd's PUT /api/v1/config); tokens of the old ones are dropped. */
  useCredentials(credentials: Credentials | undefined): void {
    this.#authorizer.useCredentials(credentials)
  }

  /** Docker's files and helpers are asked again. */
  lookUpCredentials(): void {
    this.#authorizer.lookUpAgain()
  }

  /** See Transport.useProxy. */
  useProxy(proxy: ProxyChoice | undefined): void {
    this.#secrets = [...this.#secrets, ...secretsOf(proxy)]
    this.#transport.useProxy(proxy)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#authorizer[Symbol.dispose]()
    await this.#transport[Symbol.asyncDispose]()
  }

  /**
   * An answer whose status is in `accept`; its body is the caller's to read or discard. Throws what `statusError` says for others,
   * REGISTRY_UNREACHABLE when the registry cannot be reached, REGISTRY_PROTOCOL for redirect loops; `signal.reason` when aborted.
   */
  async call(call: Call): Promise<HttpResponse> {
    const attempts = call.attempts ?? this.retry.attempts
    for (let attempt = 1; ; attempt++) {
      let delayMs = backoffMs(this.retry, attempt + 1)
      let reason: string
      try {
        const response = await this.#exchange(call)
        if (call.accept.includes(response.status)) return response
        const wait = retryAfterMs(response.header('retry-after'), response.header('date')) ?? 0
        if (attempt >= attempts || !mayPass(response.status) || wait > MAX_RETRY_AFTER_MS) {
          throw await statusError(response, call.method, (text) => scrub(this.#authorizer.scrub(text), this.#secrets))
        }
        await response.discard()
        delayMs = Math.max(delayMs, wait)
        reason = `status ${response.status}`
      } catch (error) {
        // a refusal carries its status and was judged above; only broken connections are left
        if (!hasCode(error, 'REGISTRY_UNREACHABLE') || error.context['status'] !== undefined) throw error
        reason = String(error.context['reason'])
        if (attempt >= attempts || LASTING_REASONS.test(reason)) throw error
        // a registry that answers 401 while a long body is on its way often just hangs up
        if (call.body !== undefined) this.#authorizer.forget()
      }
      publish('registry:request:retry', { method: call.method, url: redactUrl(await this.#urlOf(call)), reason, delayMs })
      await sleep(delayMs, call.signal)
    }
  }

  /**
   * GET of a blob; the address to which the registry redirects it is remembered, and forgotten when it refuses.
   * `headers` usually hold a Range. Statuses 200, 206 and 416 are answers.
   */
  async getBlob(path: string, { headers, signal, attempts, prefetch = false }: Pick<Call, 'signal' | 'attempts' | 'prefetch'> & { readonly headers: Readonly<Record<string, string>> }): Promise<HttpResponse> {
    const accept = [200, 206, 416]
    const remembered = this.#redirects.get(path)
    if (remembered !== undefined) {
      try {
        const response = await this.#transport.request({ method: 'GET', url: remembered, headers, prefetch, signal })
        if (accept.includes(response.status)) return response
        await response.discard()
      } catch (error) {
        if (!hasCode(error, 'REGISTRY_UNREACHABLE')) throw error
      }
      this.#redirects.delete(path)
    }
    const response = await this.call({ method: 'GET', target: path, headers, accept, prefetch, signal, ...(attempts === undefined ? {} : { attempts }) })
    if (response.url.origin !== this.#base?.origin) {
      if (this.#redirects.size >= MAX_REMEMBERED_REDIRECTS) this.#redirects.clear()
      this.#redirects.set(path, response.url)
    }
    return response
  }

  /** `location` of an upload or redirect, relative to the address that gave it; never from TLS down to plain HTTP on one host. */
  resolveLocation(location: string | undefined, from: URL): URL {
    const url = location !== undefined && URL.canParse(location, from.href) ? new URL(location, from) : undefined
    if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
      throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(from)}: answer has no usable Location`)
    }
    // COMPAT: registries behind a TLS proxy name themselves http://
    if (from.protocol === 'https:' && url.protocol === 'http:' && url.hostname === from.hostname) {
      url.protocol = 'https:'
      if (url.port === '' || url.port === '80') url.port = from.port
    }
    if (from.protocol === 'https:' && url.protocol === 'http:' && this.#options.insecure !== true) {
      throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(from)} redirects to ${redactUrl(url)}, which is not encrypted`)
    }
    return url
  }

  async #exchange(call: Call): Promise<HttpResponse> {
    let url = await this.#urlOf(call)
    const scopes = [this.#scope, ...(call.scopes ?? [])]
    const { method, signal } = call
    for (let redirects = 0, challenges = 0, hasRenewed = false; ; ) {
      const own = url.origin === this.#base?.origin
      const authorization = own ? await this.#authorizer.header(scopes, signal) : undefined
      const response = await this.#transport.request({
        method, url, signal, prefetch: call.prefetch === true,
        headers: { ...call.headers, ...(own ? this.#options.headers : {}), ...(authorization === undefined ? {} : { authorization }) },
        ...(call.body === undefined ? {} : { body: call.body() }),
        ...(call.headersTimeoutMs === undefined ? {} : { headersTimeoutMs: call.headersTimeoutMs }),
      })
      const isRefused = response.status === 401 || response.status === 403
      if (response.status === 401 && own && challenges < MAX_CHALLENGES && this.#authorizer.challenge(response)) {
        challenges++
        await response.discard()
        continue
      }
      // once: what was good may have expired, a token, a password in docker's files, or the signed address of a CDN, for which the registry gives another
      if (isRefused && !hasRenewed && (own ? authorization !== undefined && await this.#authorizer.renew(signal) : redirects > 0)) {
        hasRenewed = true
        await response.discard()
        if (!own) url = await this.#urlOf(call)
        redirects = 0
        continue
      }
      if (!isRedirect(response.status, method)) return response
      if (++redirects > MAX_REDIRECTS) throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(url)}: more than ${MAX_REDIRECTS} redirects`)
      const next = this.#redirected(this.resolveLocation(response.header('location'), url))
      await response.discard()
      url = next
    }
  }

  /** `url` with what `blobRedirect` replaces; what stays at the registry itself is left alone. */
  #redirected(url: URL): URL {
    const replace = this.#options.blobRedirect
    if (replace === undefined || url.origin === this.#base?.origin) return url
    const changed = new URL(url)
    if (replace.scheme !== undefined) changed.protocol = `${replace.scheme}:`
    if (replace.host !== undefined) changed.host = replace.host
    return changed
  }

  async #urlOf({ target, signal }: Call): Promise<URL> {
    this.#base ??= await this.#bases.run('base', (shared) => this.#findBase(shared), signal)
    if (typeof target !== 'string') return target
    const { apiPath = '/v2', repository, namespace } = this.address
    const url = new URL(`${apiPath}/${repository}/${target}`, this.#base)
    if (namespace !== undefined) url.searchParams.set('ns', namespace)
    return url
  }

  /** https://HOST; http://HOST when asked for; with `insecure` whichever answers, TLS first. */
  async #findBase(signal: AbortSignal): Promise<URL> {
    const { host } = this.address
    const plain = new URL(`http://${host}`)
    const encrypted = new URL(`https://${host}`)
    if (this.#options.plainHttp === true) return plain
    if (this.#options.insecure !== true) return encrypted
    try {
      await (await this.#transport.request({ method: 'GET', url: new URL('/v2/', encrypted), signal })).discard()
      return encrypted
    } catch (error) {
      if (!hasCode(error, 'REGISTRY_UNREACHABLE')) throw error
      return plain
    }
  }
}

/** The token scope of reading `repository`. */
export function pullScope(repository: string): string {
  return `repository:${repository}:pull`
}

function secretsOf(proxy: ProxyChoice | undefined): readonly string[] {
  if (proxy === undefined) return []
  const { username, password } = new URL(proxy.url)
  return password === '' ? [] : [decodeURIComponent(password), Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')]
}

/** Bodies follow only where the status says that the method stays. */
function isRedirect(status: number, method: Method): boolean {
  if (status === 307 || status === 308) return true
  return (status === 301 || status === 302 || status === 303) && (method === 'GET' || method === 'HEAD')
}

// The Authorization header for one registry host: learns from the first challenge whether Basic or Bearer is wanted, then fetches,
// caches and renews tokens per set of scopes. SPEC: distribution docs/spec/auth/token.md (GET) and oauth.md (POST).
//
//   request ──► header(scopes) ──► cached token? ──no──► token service (one request per scope set, shared by all layers)
//      ▲                                                     │
//      └──── 401: challenge() forgets the token, once ◄──────┘

import { CodedError, foreignText, hasCode } from '../../core/errors.ts'
import { SingleFlight } from '../../core/single-flight.ts'
import { KiB } from '../../core/units.ts'
import { redactUrl, scrub } from '../http/redact.ts'
import { backoffMs, mayPass, sleep, type RetryPolicy } from '../http/retry.ts'
import { isLoopback, type HttpRequest, type HttpResponse, type Transport } from '../http/transport.ts'
import { parseChallenge, type Challenge } from './challenge.ts'
import type { Credentials } from './credentials.ts'

/** LIMIT: tokens are a few KiB; JWTs with many scopes reach some dozen. */
const MAX_TOKEN_ANSWER = 256 * KiB
/** SPEC: token.md: without expires_in a token lives 60 s. */
const DEFAULT_EXPIRY_S = 60
/** A token is renewed beside its use this long before its end, or after half of a shorter life: no request waits for that. */
const RENEWAL_MARGIN_MS = 15_000
/** This close to its end (or a tenth of a shorter life) it is not used any more, so that it does not expire on the way. */
const EXPIRY_MARGIN_MS = 3000
/** LIMIT: between two looks into docker's files after refusals: a helper is a process. */
const LOOK_UP_INTERVAL_MS = 1000
/** LIMIT: a renewal beside the use that failed is tried again after this long. */
const RENEWAL_RETRY_MS = 1000
const CLIENT_ID = 'nydus-registry-client'

export interface AuthorizerOptions {
  readonly transport: Transport
  readonly host: string
  readonly retry: RetryPolicy
  /** Plain HTTP token services are used on request only. */
  readonly allowPlainHttp: boolean
  readonly credentials: (signal: AbortSignal) => Promise<Credentials | undefined>
}

interface Token { readonly value: string; readonly renewAt: number; readonly expiresAt: number }

/** Holds what a host's challenge said and the tokens that came of it. */
export class Authorizer implements Disposable {
  readonly #options: AuthorizerOptions
  readonly #flights = new SingleFlight<string, Token>()
  readonly #lookUps = new SingleFlight<'credentials', Credentials | undefined>()
  readonly #tokens = new Map<string, Token>()
  readonly #secrets = new Set<string>()
  #challenge: Challenge | undefined
  #credentials: Credentials | undefined
  #lookedUp = false
  /** When docker's files were asked last; undefined for credentials that were given. */
  #lookedUpAt: number | undefined
  readonly #closing = new AbortController()
  #refreshToken: string | undefined

  constructor(options: AuthorizerOptions) {
    this.#options = options
  }

  /** The header for a request that needs `scopes`; undefined before the first challenge and for anonymous Basic. */
  async header(scopes: readonly string[], signal: AbortSignal): Promise<string | undefined> {
    const challenge = this.#challenge
    if (challenge === undefined) return undefined
    const credentials = await this.#lookUp(signal)
    if (credentials?.kind === 'bearer') return `Bearer ${credentials.token}`
    if (challenge.scheme === 'basic') return credentials?.kind === 'password' ? `Basic ${basic(credentials)}` : undefined
    const wanted = [...new Set([...scopes, ...challenge.scopes])].sort()
    const key = wanted.join(' ')
    const known = this.#tokens.get(key)
    const now = performance.now()
    const fetch = (from: Credentials | undefined, until: AbortSignal) => this.#flights.run(key, (shared) => this.#fetchToken(challenge, wanted, from, shared), until)
    if (known !== undefined && known.expiresAt > now) {
      if (known.renewAt <= now) this.#renewBeside(key, known, fetch(credentials, this.#closing.signal))
      return `Bearer ${known.value}`
    }
    const token = await fetch(credentials, signal).catch(async (error: unknown) => {
      if (!hasCode(error, 'REGISTRY_DENIED') || !(await this.#lookUpAgain(signal))) throw error
      return await fetch(this.#credentials, signal)
    })
    this.#tokens.set(key, token)
    return `Bearer ${token.value}`
  }

  /** After a refusal of what `header` gave: drops tokens, looks for other credentials. False when the next request would say the same. */
  async renew(signal: AbortSignal): Promise<boolean> {
    const hadTokens = this.#tokens.size > 0
    this.forget()
    return (await this.#lookUpAgain(signal)) || hadTokens
  }

  [Symbol.dispose](): void {
    this.#closing.abort()
  }

  /** After a 401: learns from it and drops what was refused. False when there is nothing to learn, so that repeating is useless. */
  challenge(response: HttpResponse): boolean {
    const challenge = parseChallenge(response.header('www-authenticate'))
    if (challenge === undefined) return false
    this.#challenge = challenge
    this.forget()
    return true
  }

  /** These from now on, whatever was looked up; what the old ones earned is dropped. */
  useCredentials(credentials: Credentials | undefined): void {
    if (credentials?.kind === 'password') this.#remember(credentials.password, basic(credentials))
    else if (credentials !== undefined) this.#remember(credentials.token)
    this.#credentials = credentials
    this.#lookedUp = true
    this.#lookedUpAt = undefined
    this.#refreshToken = undefined
    this.forget()
  }

  /** Docker's files and helpers are asked again at the next request. */
  lookUpAgain(): void {
    this.#lookedUp = false
    this.forget()
  }

  /** Drops all tokens: the next request fetches a fresh one. */
  forget(): void {
    this.#tokens.clear()
  }

  /** `text` without any secret that this authorizer has used: registries echo requests in their errors. */
  scrub(text: string): string {
    return scrub(text, this.#secrets)
  }

  async #lookUp(signal: AbortSignal): Promise<Credentials | undefined> {
    if (this.#lookedUp) return this.#credentials
    const found = await this.#lookUps.run('credentials', this.#options.credentials, signal)
    if (!this.#lookedUp) {
      this.useCredentials(found)
      this.#lookedUpAt = performance.now()
    }
    return this.#credentials
  }

  /** Whether docker's files say something else now. */
  async #lookUpAgain(signal: AbortSignal): Promise<boolean> {
    if (this.#lookedUpAt === undefined || performance.now() - this.#lookedUpAt < LOOK_UP_INTERVAL_MS) return false
    const before = JSON.stringify(this.#credentials)
    this.lookUpAgain()
    return JSON.stringify(await this.#lookUp(signal)) !== before
  }

  // What it fails with is no matter yet: the old token is still good.
  #renewBeside(key: string, known: Token, fetching: Promise<Token>): void {
    this.#tokens.set(key, { ...known, renewAt: Number.POSITIVE_INFINITY }) // the next request must not begin another one
    fetching.catch(() => ({ ...known, renewAt: performance.now() + RENEWAL_RETRY_MS })).then((token) => {
      if (this.#tokens.has(key)) this.#tokens.set(key, token) // else it was dropped meanwhile
    }).catch(() => {})
  }

  async #fetchToken(challenge: Challenge & { scheme: 'bearer' }, scopes: readonly string[], credentials: Credentials | undefined, signal: AbortSignal): Promise<Token> {
    const realm = this.#realm(challenge.realm)
    const asked = performance.now()
    const attempts: (() => Omit<HttpRequest, 'signal'>)[] = []
    const refresh = this.#refreshToken ?? (credentials?.kind === 'identity' ? credentials.token : undefined)
    if (refresh !== undefined) attempts.push(() => postRequest(realm, challenge.service, scopes, { grant_type: 'refresh_token', refresh_token: refresh }))
    if (credentials?.kind === 'password') {
      attempts.push(() => getRequest(realm, challenge.service, scopes, credentials))
      attempts.push(() => postRequest(realm, challenge.service, scopes, { grant_type: 'password', username: credentials.username, password: credentials.password }))
    } else if (refresh === undefined) {
      attempts.push(() => getRequest(realm, challenge.service, scopes, undefined))
    }
    let refusal: CodedError | undefined
    for (const request of attempts) {
      const response = await this.#ask(request(), signal)
      const body = await response.bytes(MAX_TOKEN_ANSWER)
      if (response.status === 200) return this.#readToken(body, realm, asked)
      const said = foreignText(this.scrub(Buffer.from(body).toString('utf8')))
      refusal = new CodedError('REGISTRY_DENIED', `${redactUrl(realm)} gave no token for ${this.#options.host}: status ${response.status} ${said}`, { status: response.status })
      if (response.status !== 404 && response.status !== 405 && response.status !== 400 && refresh === undefined) break
    }
    throw refusal ?? new CodedError('REGISTRY_DENIED', `no way to ask ${redactUrl(realm)} for a token`)
  }

  async #ask(request: Omit<HttpRequest, 'signal'>, signal: AbortSignal): Promise<HttpResponse> {
    const { retry, transport } = this.#options
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await transport.request({ ...request, isDirect: true, signal })
        if (!mayPass(response.status) || attempt >= retry.attempts) return response
        await response.discard()
      } catch (error) {
        if (signal.aborted || attempt >= retry.attempts) throw error
      }
      await sleep(backoffMs(retry, attempt + 1), signal)
    }
  }

  #readToken(body: Uint8Array, realm: URL, asked: number): Token {
    const fields = jsonObject(body)
    const value = text(fields['token']) ?? text(fields['access_token'])
    if (value === undefined || !/^[\x21-\x7e]+$/.test(value)) throw new CodedError('REGISTRY_PROTOCOL', `${redactUrl(realm)} answered without a usable token`)
    const refresh = text(fields['refresh_token'])
    if (refresh !== undefined) this.#refreshToken = refresh
    this.#remember(value, refresh ?? '')
    const seconds = typeof fields['expires_in'] === 'number' && fields['expires_in'] > 0 ? fields['expires_in'] : DEFAULT_EXPIRY_S
    const lifeMs = seconds * 1000
    return { value, renewAt: asked + Math.max(lifeMs - RENEWAL_MARGIN_MS, lifeMs / 2), expiresAt: asked + Math.max(lifeMs - EXPIRY_MARGIN_MS, lifeMs * 0.9) }
  }

  /** Credentials go to the realm that the registry names; never unencrypted unless asked for. */
  #realm(text: string): URL {
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
      throw new CodedError('REGISTRY_PROTOCOL', `${this.#options.host} names no usable token service: "${foreignText(text, 80)}"`)
    }
    if (url.protocol === 'http:' && !this.#options.allowPlainHttp && !isLoopback(url.hostname)) {
      throw new CodedError('REGISTRY_DENIED', `${this.#options.host} sends credentials to ${redactUrl(url)}, which is not encrypted; allow plain HTTP to do so`)
    }
    return url
  }

  #remember(...secrets: readonly string[]): void {
    for (const secret of secrets) if (secret !== '') this.#secrets.add(secret)
  }
}

function basic({ username, password }: Credentials & { kind: 'password' }): string {
  return Buffer.from(`${username}:${password}`).toString('base64')
}

function getRequest(realm: URL, service: string | undefined, scopes: readonly string[], credentials: (Credentials & { kind: 'password' }) | undefined): Omit<HttpRequest, 'signal'> {
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  for (const scope of scopes) url.searchParams.append('scope', scope)
  if (credentials === undefined) return { method: 'GET', url }
  url.searchParams.set('account', credentials.username)
  return { method: 'GET', url, headers: { authorization: `Basic ${basic(credentials)}` } }
}

function postRequest(realm: URL, service: string | undefined, scopes: readonly string[], grant: Readonly<Record<string, string>>): Omit<HttpRequest, 'signal'> {
  const form = new URLSearchParams({ client_id: CLIENT_ID, ...grant, scope: scopes.join(' '), ...(service === undefined ? {} : { service }) })
  return { method: 'POST', url: realm, headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: form.toString() }
}

function jsonObject(body: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString('utf8'))
    // SAFETY: an object out of JSON.parse; its values stay unknown.
    return typeof value === 'object' && value !== null ? value as Readonly<Record<string, unknown>> : {}
  } catch {
    return {} // the caller says that there is no token; a parser's message would quote it
  }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

// What all backends behind HTTP have in common: timeouts, retries, certificates, a proxy.
// SPEC: spec-surface.md B.3 "HTTP common" and `proxy`; defaults as nydus api/src/config.rs.

import type { Fields } from './fields.ts'

/** An HTTP proxy, such as Dragonfly's, and what to do when it is ill. */
export interface ProxyConfig {
  readonly url: string
  /** Asked every `checkIntervalMs`; undefined: the proxy is taken for healthy until a request fails. */
  readonly pingUrl: string | undefined
  /** Ask the server itself when the proxy does not answer or answers 5xx. */
  readonly fallback: boolean
  readonly checkIntervalMs: number
  /** Without any request for so long, the proxy is not asked for its health either. */
  readonly checkPauseMs: number
  /** https:// addresses are asked for as http:// through the proxy, so that it can read and share what it passes on. */
  readonly useHttp: boolean
}

export interface HttpConfig {
  readonly skipVerify: boolean
  readonly caCertFiles: readonly string[]
  /** One attempt, from its beginning to the last byte; 0 for none. */
  readonly timeoutMs: number
  readonly connectTimeoutMs: number
  readonly retryLimit: number
  /** Undefined: the environment's proxies. */
  readonly proxy: ProxyConfig | undefined
}

export const MAX_U32 = 0xffff_ffff

/** CONFIG_INVALID; the message names the key. */
export function readHttp(fields: Fields): HttpConfig {
  return {
    skipVerify: fields.boolean('skip_verify', false),
    caCertFiles: fields.strings('ca_cert_files'),
    timeoutMs: fields.integer('timeout', { fallback: 5, max: MAX_U32 }) * 1000,
    connectTimeoutMs: fields.integer('connect_timeout', { fallback: 5, max: MAX_U32 }) * 1000,
    retryLimit: fields.integer('retry_limit', { fallback: 0, max: 255 }),
    proxy: readProxy(fields.table('proxy')),
  }
}

/** `http` or `https` under `key`, or `fallback` when it is not there or empty. */
export function readScheme<F extends 'https' | undefined>(fields: Fields, key: string, fallback: F): 'http' | 'https' | F {
  const scheme = fields.string(key, '')
  if (scheme === '') return fallback
  return scheme === 'http' || scheme === 'https' ? scheme : fields.refuse(key, 'must be https or http')
}

/** The text under `key`, which must not be empty. */
export function readText(fields: Fields, key: string): string {
  return fields.string(key) || fields.refuse(key, 'must not be empty')
}

/** The address under `key`: http:// or https://. */
export function readUrl(fields: Fields, key: string): string {
  const text = fields.string(key)
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) fields.refuse(key, 'must be an http:// or https:// address')
  return text
}

/** The same as upstream writes them. */
export function shownHttp({ skipVerify, caCertFiles, timeoutMs, connectTimeoutMs, retryLimit, proxy }: HttpConfig): object {
  return {
    skip_verify: skipVerify, ca_cert_files: caCertFiles, timeout: timeoutMs / 1000, connect_timeout: connectTimeoutMs / 1000, retry_limit: retryLimit,
    ...(proxy && {
      proxy: {
        url: withoutUser(proxy.url), ping_url: proxy.pingUrl === undefined ? '' : withoutUser(proxy.pingUrl), fallback: proxy.fallback,
        check_interval: proxy.checkIntervalMs / 1000, use_http: proxy.useHttp, check_pause_elapsed: proxy.checkPauseMs / 1000,
      },
    }),
  }
}

/** An address without what may be secret in it: user, password, query. */
export function withoutUser(text: string): string {
  const url = new URL(text)
  return `${url.protocol}//${url.host}${url.pathname === '/' ? '' : url.pathname}`
}

function readProxy(proxy: Fields | undefined): ProxyConfig | undefined {
  if (proxy === undefined) return undefined
  if (proxy.string('dragonfly_scheduler_endpoint', '') !== '') proxy.refuse('dragonfly_scheduler_endpoint', 'is not in this version; url is: Dragonfly\'s proxy works through it')
  if (proxy.string('url', '') === '') return undefined
  return {
    url: readUrl(proxy, 'url'),
    pingUrl: proxy.string('ping_url', '') === '' ? undefined : readUrl(proxy, 'ping_url'),
    fallback: proxy.boolean('fallback', true),
    checkIntervalMs: Math.max(1, proxy.integer('check_interval', { fallback: 5, max: MAX_U32 })) * 1000,
    checkPauseMs: proxy.integer('check_pause_elapsed', { fallback: 300, max: MAX_U32 }) * 1000,
    useHttp: proxy.boolean('use_http', false),
  }
}

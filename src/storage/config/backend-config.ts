// The backends of a configuration. Types that come later are refused by name.
// SPEC: spec-surface.md B.3 backend.*; defaults as nydus api/src/config.rs.

import type { Fields } from './fields.ts'

export interface LocalfsConfig { readonly type: 'localfs'; readonly blobFile: string; readonly dir: string; readonly altDirs: readonly string[] }

export interface RegistryConfig {
  readonly type: 'registry'
  readonly scheme: 'https' | 'http'
  readonly host: string
  readonly repo: string
  /** base64 of `user:password`, or undefined to look in docker's files. */
  readonly auth: string | undefined
  /** Bearer token. */
  readonly registryToken: string | undefined
  readonly skipVerify: boolean
  readonly caCertFiles: readonly string[]
  readonly timeoutMs: number
  readonly connectTimeoutMs: number
  readonly retryLimit: number
  /** An HTTP proxy for everything, or undefined for the environment's. */
  readonly proxyUrl: string | undefined
  /** Where redirects of blobs are taken to, instead of what the registry says. */
  readonly blobRedirect: { readonly scheme: 'https' | 'http' | undefined; readonly host: string | undefined }
}

export type BackendConfig = LocalfsConfig | RegistryConfig

const LATER = ['localdisk', 'oss', 's3', 'http-proxy']
const MAX_U32 = 0xffff_ffff

/** `fields`: the table of the backend, with `parent` around it for messages. CONFIG_INVALID. */
export function readBackend(type: string, fields: Fields | undefined, { parent, imagePullAuth }: { readonly parent: Fields; readonly imagePullAuth: string | undefined }): BackendConfig {
  if (LATER.includes(type)) parent.refuse('type', `"${type}" is not in this version; it has localfs and registry`)
  if (type !== 'localfs' && type !== 'registry') parent.refuse('type', 'must be localfs or registry')
  if (fields === undefined) return parent.refuse(type, 'is missing (version 1: config)')
  return type === 'localfs' ? readLocalfs(fields) : readRegistry(fields, imagePullAuth)
}

function readLocalfs(fields: Fields): LocalfsConfig {
  const config = { type: 'localfs', blobFile: fields.string('blob_file', ''), dir: fields.string('dir', ''), altDirs: fields.strings('alt_dirs') } as const
  if (config.blobFile === '' && config.dir === '') fields.refuse('dir', 'or blob_file must be given')
  return config
}

function readRegistry(fields: Fields, imagePullAuth: string | undefined): RegistryConfig {
  const scheme = fields.string('scheme', 'https')
  if (scheme !== 'https' && scheme !== 'http') return fields.refuse('scheme', 'must be https or http')
  for (const key of ['host', 'repo']) if (fields.string(key) === '') fields.refuse(key, 'must not be empty')
  const blobScheme = fields.string('blob_url_scheme', '')
  if (blobScheme !== '' && blobScheme !== 'https' && blobScheme !== 'http') return fields.refuse('blob_url_scheme', 'must be https or http')
  const proxy = fields.table('proxy')
  if (proxy !== undefined && proxy.string('dragonfly_scheduler_endpoint', '') !== '') proxy.refuse('dragonfly_scheduler_endpoint', 'is not in this version')
  return {
    type: 'registry', scheme, host: fields.string('host'), repo: fields.string('repo'),
    auth: imagePullAuth ?? (fields.string('auth', '') || undefined),
    registryToken: fields.string('registry_token', '') || undefined,
    skipVerify: fields.boolean('skip_verify', false),
    caCertFiles: fields.strings('ca_cert_files'),
    timeoutMs: fields.integer('timeout', { fallback: 5, max: MAX_U32 }) * 1000,
    connectTimeoutMs: fields.integer('connect_timeout', { fallback: 5, max: MAX_U32 }) * 1000,
    retryLimit: fields.integer('retry_limit', { fallback: 0, max: 255 }),
    proxyUrl: proxy?.string('url', '') || undefined,
    blobRedirect: { scheme: blobScheme || undefined, host: fields.string('blob_redirected_host', '') || undefined },
  }
}

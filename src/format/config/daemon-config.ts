// The configuration of a daemon or reader: where blobs are, where to cache them, what to fetch ahead. Two generations of JSON, one result.
// SPEC: spec-surface.md B.3; nydus api/src/config.rs. Decoded by hand: a schema library costs more than a daemon's start may.

import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { Fields } from './fields.ts'

/** LIMIT: upstream's bound of a configuration file. */
export const MAX_CONFIG_BYTES = MiB
/** LIMIT: upstream's bound of one merged request. */
const MAX_BATCH = 256 * MiB

export interface LocalfsConfig { readonly type: 'localfs'; readonly blobFile: string; readonly dir: string; readonly altDirs: readonly string[] }

/** Seconds and counts as in the file. */
export interface HttpConfig {
  readonly skipVerify: boolean
  readonly caCertFiles: readonly string[]
  readonly timeoutSeconds: number
  readonly connectTimeoutSeconds: number
  readonly retryLimit: number
  readonly proxyUrl: string
  readonly proxyFallback: boolean
}

export interface RegistryConfig extends HttpConfig {
  readonly type: 'registry'
  readonly scheme: string
  readonly host: string
  readonly repo: string
  /** base64 of user:password, or empty. */
  readonly auth: string
  readonly registryToken: string
  readonly blobUrlScheme: string
  readonly blobRedirectedHost: string
}

export type BackendConfig = LocalfsConfig | RegistryConfig

export interface CacheConfig { readonly type: 'blobcache' | 'filecache'; readonly workDir: string }

export interface PrefetchConfig {
  readonly enable: boolean
  readonly threads: number
  /** Bytes merged into one request. */
  readonly batchSize: number
  /** Bytes a second, 0 for no limit. */
  readonly bandwidthLimit: number
  readonly prefetchAll: boolean
}

export interface DaemonConfig {
  /** Id of blob cache metrics. */
  readonly id: string
  readonly backend: BackendConfig
  readonly cache: CacheConfig
  readonly prefetch: PrefetchConfig
}

/**
 * Parses a configuration file: version 2 when it says so, else version 1. Unknown keys are ignored. `auth` replaces the registry's credentials.
 * @throws CONFIG_INVALID naming the key; kinds that come later are refused by name
 */
export function parseDaemonConfig(text: string, { auth }: { readonly auth?: string | undefined } = {}): DaemonConfig {
  if (text.length > MAX_CONFIG_BYTES) throw new CodedError('CONFIG_INVALID', `a configuration is at most ${MAX_CONFIG_BYTES} bytes`)
  const fields = new Fields(parseJson(text), '')
  const config = fields.has('version') ? readV2(fields) : readV1(fields)
  return auth !== undefined && config.backend.type === 'registry' ? { ...config, backend: { ...config.backend, auth } } : config
}

/** Blobs in one directory that is also the cache: `--localfs-dir`. */
export function localDirectoryConfig(dir: string): DaemonConfig {
  return {
    id: dir,
    backend: { type: 'localfs', blobFile: '', dir, altDirs: [] },
    cache: { type: 'blobcache', workDir: dir },
    prefetch: { enable: false, threads: 8, batchSize: MiB, bandwidthLimit: 0, prefetchAll: false },
  }
}

/** As version 2 and without secrets, for the API. */
export function shownConfig({ id, backend, cache, prefetch }: DaemonConfig): object {
  const { enable, threads, batchSize, bandwidthLimit, prefetchAll } = prefetch
  const shownPrefetch = { enable, threads, batch_size: batchSize, bandwidth_limit: bandwidthLimit, prefetch_all: prefetchAll, stream_prefetch: false }
  return {
    version: 2,
    id,
    backend: backend.type === 'localfs'
      ? { type: 'localfs', localfs: { blob_file: backend.blobFile, dir: backend.dir, alt_dirs: backend.altDirs } }
      : {
          type: 'registry',
          registry: {
            scheme: backend.scheme, host: backend.host, repo: backend.repo, blob_url_scheme: backend.blobUrlScheme,
            blob_redirected_host: backend.blobRedirectedHost, skip_verify: backend.skipVerify, ca_cert_files: backend.caCertFiles,
            timeout: backend.timeoutSeconds, connect_timeout: backend.connectTimeoutSeconds, retry_limit: backend.retryLimit,
          },
        },
    external_backends: [],
    cache: { type: cache.type, compressed: false, validate: true, prefetch: shownPrefetch, filecache: { work_dir: cache.workDir } },
    rafs: { mode: 'direct', batch_size: MiB, validate: false, enable_xattr: true, iostats_files: false, access_pattern: false, latest_read_files: false, prefetch: shownPrefetch },
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `the configuration is not JSON: ${cause instanceof Error ? cause.message : ''}`, {}, { cause })
  }
}

function readV2(fields: Fields): DaemonConfig {
  const version = fields.count('version', 2)
  if (version !== 2) throw new CodedError('CONFIG_INVALID', `version ${version}: only 2 and files without a version (1) are known`, { key: 'version' })
  const backend = fields.object('backend', { required: true })
  const type = backend.text('type')
  const cache = fields.object('cache')
  const own = readPrefetch(cache.object('prefetch'), { batch: 'batch_size', threads: 'threads', bandwidth: 'bandwidth_limit', prefetchAll: false })
  const ofRafs = readPrefetch(fields.object('rafs').object('prefetch'), { batch: 'batch_size', threads: 'threads', bandwidth: 'bandwidth_limit', prefetchAll: false })
  return {
    id: fields.text('id', ''),
    backend: readBackend(type, backend.object(type)),
    cache: readCache(cache, cache.object('filecache')),
    prefetch: own.enable ? own : ofRafs,
  }
}

function readV1(fields: Fields): DaemonConfig {
  const device = fields.object('device', { required: true })
  const backend = device.object('backend', { required: true })
  const cache = device.object('cache')
  return {
    id: device.text('id', ''),
    backend: readBackend(backend.text('type'), backend.object('config', { required: true })),
    cache: readCache(cache, cache.object('config')),
    prefetch: readPrefetch(fields.object('fs_prefetch'), { batch: 'merging_size', threads: 'threads_count', bandwidth: 'bandwidth_rate', prefetchAll: true }),
  }
}

function readBackend(type: string, fields: Fields): BackendConfig {
  if (type === 'localfs') {
    const backend: LocalfsConfig = { type, blobFile: fields.text('blob_file', ''), dir: fields.text('dir', ''), altDirs: fields.texts('alt_dirs') }
    if (backend.blobFile === '' && backend.dir === '') throw new CodedError('CONFIG_INVALID', `${fields.path('dir')} or ${fields.path('blob_file')} must be given`, { key: fields.path('dir') })
    return backend
  }
  if (type === 'registry') {
    return {
      type, scheme: fields.text('scheme', 'https'), host: fields.text('host'), repo: fields.text('repo'), auth: fields.text('auth', ''),
      registryToken: fields.text('registry_token', ''), blobUrlScheme: fields.text('blob_url_scheme', ''), blobRedirectedHost: fields.text('blob_redirected_host', ''),
      ...readHttp(fields),
    }
  }
  const known = ['localdisk', 'oss', 's3', 'http-proxy'].includes(type)
  throw new CodedError('CONFIG_INVALID', known ? `backend '${type}' is not in this version: it reads localfs and registry` : `unknown backend '${type}'`, { key: 'backend.type' })
}

function readHttp(fields: Fields): HttpConfig {
  const proxy = fields.object('proxy')
  return {
    skipVerify: fields.flag('skip_verify', false), caCertFiles: fields.texts('ca_cert_files'), timeoutSeconds: fields.count('timeout', 5),
    connectTimeoutSeconds: fields.count('connect_timeout', 5), retryLimit: fields.count('retry_limit', 0), proxyUrl: proxy.text('url', ''),
    proxyFallback: proxy.flag('fallback', true),
  }
}

// COMPAT: RAFS v6 over FUSE needs a cache with files; `validate` may be anything, every chunk is verified anyway.
function readCache(cache: Fields, place: Fields): CacheConfig {
  const type = cache.text('type', 'blobcache') || 'blobcache'
  if (type !== 'blobcache' && type !== 'filecache') throw new CodedError('CONFIG_INVALID', `cache type '${type}': RAFS v6 over FUSE needs blobcache or filecache`, { key: cache.path('type') })
  if (cache.flag('compressed', false)) throw new CodedError('CONFIG_INVALID', `${cache.path('compressed')}: the cache of a RAFS v6 image is never compressed`, { key: cache.path('compressed') })
  if (place.flag('enable_encryption', false)) throw new CodedError('CONFIG_INVALID', `${place.path('enable_encryption')} is not in this version`, { key: place.path('enable_encryption') })
  return { type, workDir: place.text('work_dir', '.') }
}

function readPrefetch(fields: Fields, names: { batch: string; threads: string; bandwidth: string; prefetchAll: boolean }): PrefetchConfig {
  return {
    enable: fields.flag('enable', false), threads: fields.count(names.threads, 8, { least: 1, most: 1024 }), batchSize: fields.count(names.batch, MiB, { most: MAX_BATCH }),
    bandwidthLimit: fields.count(names.bandwidth, 0), prefetchAll: fields.flag('prefetch_all', names.prefetchAll),
  }
}

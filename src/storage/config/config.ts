// nydusd's configuration: version 2 as JSON or TOML, version 1 as JSON, both into one shape.
// SPEC: spec-surface.md B.3; nydus api/src/config.rs.

import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { isCacheKey, type CacheEncryption } from '../cache/cipher.ts'
import type { CacheLimits } from '../cache/quota.ts'
import { readBackend, type BackendConfig } from './backend-config.ts'
import { Fields } from './fields.ts'

export interface PrefetchConfig {
  readonly enable: boolean
  /** Requests at once. */
  readonly threads: number
  /** Bytes of one request. */
  readonly batchSize: number
  /** Bytes a second, 0 for no limit. */
  readonly bandwidthLimit: number
  readonly prefetchAll: boolean
  readonly streamPrefetch: boolean
  /** Our addition: then the rest of the image, until nothing needs the backend any more. */
  readonly backgroundDownload: boolean
}

export interface CacheConfig {
  /** Directory of the blob cache; undefined: nothing is stored. */
  readonly workDir: string | undefined
  /** Undefined: as much as there is. */
  readonly limits?: CacheLimits | undefined
  /** Undefined: what is stored is not encrypted. */
  readonly encryption?: CacheEncryption | undefined
  /**
   * What the configuration says of `validate`. Only an explicit false switches the verification of what is read off; upstream's default is off,
   * and its RAFS v6 refuses true.
   */
  readonly validate: boolean | undefined
  /** Whether cached chunks are to stay as the backend has them. Only looked at by who hands the files to somebody else: ours are decompressed. */
  readonly isCompressed: boolean
  readonly prefetch: PrefetchConfig
}

export interface RafsConfig {
  readonly mode: 'direct' | 'cached'
  /** Decompressed bytes up to which a miss is extended to its neighbours. */
  readonly batchSize: number
  readonly validate: boolean
  readonly enableXattr: boolean
  readonly iostatsFiles: boolean
  readonly accessPattern: boolean
  readonly latestReadFiles: boolean
  readonly prefetch: PrefetchConfig
}

/** Both on one file system of the host. */
export interface OverlayConfig {
  readonly upperDir: string
  /** Where files are made before they are put in their place, and what a successor of the daemon needs is kept. */
  readonly workDir: string
}

export interface NydusConfig {
  /** Names the instance in metrics. */
  readonly id: string
  readonly backend: BackendConfig
  readonly cache: CacheConfig
  readonly rafs: RafsConfig
  /** Makes the mount writable: what is written goes to directories of the host. */
  readonly overlay?: OverlayConfig | undefined
}

export interface ParseConfigOptions {
  /** Replaces the registry's `auth`: the environment's IMAGE_PULL_AUTH. */
  readonly imagePullAuth?: string | undefined
}

/** LIMIT: as upstream's. */
export const MAX_CONFIG_SIZE = MiB
/** LIMIT: as upstream's, for prefetch batches and the extension of misses. */
const MAX_BATCH_SIZE = 256 * MiB
const MAX_THREADS = 1024
const MAX_U32 = 0xffff_ffff

/** Parses the text of a configuration file. CONFIG_INVALID; the message names the key. */
export async function parseConfig(text: string, options: ParseConfigOptions = {}): Promise<NydusConfig> {
  if (Buffer.byteLength(text) > MAX_CONFIG_SIZE) throw new CodedError('CONFIG_INVALID', `configuration: longer than ${MAX_CONFIG_SIZE} bytes`)
  const fields = new Fields(await parseText(text), '')
  // COMPAT: what has no version is version 1 (nydus api/src/config.rs from_str tries one after the other)
  return fields.has('version') ? readV2(fields, options) : readV1(fields, options)
}

/** The configuration of `--localfs-dir`: blobs and cache in one directory. */
export function localfsConfig(directory: string): NydusConfig {
  const prefetch = prefetchDefaults(false)
  return {
    id: '',
    backend: { type: 'localfs', blobFile: '', dir: directory, altDirs: [] },
    cache: { workDir: directory, validate: undefined, isCompressed: false, prefetch },
    rafs: { mode: 'direct', batchSize: MiB, validate: false, enableXattr: true, iostatsFiles: false, accessPattern: false, latestReadFiles: false, prefetch },
  }
}

/** JSON or TOML, by its first character. CONFIG_INVALID. */
export async function parseText(text: string): Promise<unknown> {
  if (text.trimStart().startsWith('{')) {
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw new CodedError('CONFIG_INVALID', 'configuration: not valid JSON', {}, { cause })
    }
  }
  const { parse } = await import('smol-toml') // loaded by those who write TOML only
  try {
    return parse(text)
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', 'configuration: neither JSON nor valid TOML', {}, { cause })
  }
}

function readV2(fields: Fields, { imagePullAuth }: ParseConfigOptions): NydusConfig {
  if (fields.integer('version', { max: MAX_U32 }) !== 2) fields.refuse('version', 'must be 2')
  const backend = fields.required('backend')
  const rafs = fields.table('rafs') ?? new Fields({}, 'rafs')
  const cache = fields.table('cache') ?? new Fields({}, 'cache')
  const type = backend.string('type')
  return {
    id: fields.string('id', ''),
    backend: readBackend(type, backend.table(type), { parent: backend, imagePullAuth, version: 2 }),
    cache: readCache(cache, cache.table('filecache'), readPrefetchV2(cache.table('prefetch'))),
    rafs: {
      ...readRafs(rafs, 'batch_size'), validate: rafs.boolean('validate', false), prefetch: readPrefetchV2(rafs.table('prefetch')),
    },
    ...readOverlay(fields.table('overlay')),
  }
}

// COMPAT: version 1 has no such key (nydus api/src/config.rs)
function readOverlay(fields: Fields | undefined): Pick<NydusConfig, 'overlay'> {
  if (!fields) return {}
  const overlay = { upperDir: fields.string('upper_dir'), workDir: fields.string('work_dir') }
  for (const key of ['upper_dir', 'work_dir'] as const) if (!fields.string(key).startsWith('/')) fields.refuse(key, 'must be an absolute path')
  return { overlay }
}

function readV1(fields: Fields, { imagePullAuth }: ParseConfigOptions): NydusConfig {
  const device = fields.required('device')
  const backend = device.required('backend')
  const cache = device.table('cache') ?? new Fields({}, 'device.cache')
  const prefetch = readPrefetchV1(fields.table('fs_prefetch'))
  fields.string('mode')
  return {
    id: device.string('id', ''),
    backend: readBackend(backend.string('type'), backend.table('config'), { parent: backend, imagePullAuth, version: 1 }),
    cache: readCache(cache, cache.table('config'), prefetch),
    rafs: { ...readRafs(fields, 'amplify_io'), validate: fields.boolean('digest_validate', false), prefetch },
  }
}

function readCache(cache: Fields, files: Fields | undefined, prefetch: PrefetchConfig): CacheConfig {
  const type = cache.string('type', '')
  const validate = cache.has('validate') ? cache.boolean('validate') : undefined
  const isCompressed = cache.boolean('compressed', false)
  switch (type) {
    case '': case 'dummycache': return { workDir: undefined, validate, isCompressed, prefetch }
    case 'blobcache': case 'filecache': break
    case 'fscache': return cache.refuse('type', 'fscache is not in this version')
    default: return cache.refuse('type', 'must be blobcache, filecache or dummycache')
  }
  if (files === undefined) return cache.refuse('filecache', 'is missing (version 1: config)')
  const workDir = files.string('work_dir', '.')
  if (workDir === '') files.refuse('work_dir', 'must not be empty')
  return { workDir, limits: readLimits(files), encryption: readEncryption(files), validate, isCompressed, prefetch }
}

function readEncryption(files: Fields): CacheEncryption | undefined {
  const key = files.string('encryption_key', '')
  const convergent = files.boolean('enable_convergent_encryption', false)
  // COMPAT: convergence alone encrypts nothing
  if (!files.boolean('enable_encryption', false)) return undefined
  if (!isCacheKey(key)) files.refuse('encryption_key', 'must be 32 bytes in hexadecimal whose halves differ')
  return { key, convergent }
}

// Our addition: upstream leaves it to the snapshotter to clear up.
function readLimits(files: Fields): CacheLimits | undefined {
  const quota = files.integer('quota', { fallback: 0, max: Number.MAX_SAFE_INTEGER })
  const highWatermark = files.integer('quota_high_watermark', { fallback: 95, max: 100 })
  const lowWatermark = files.integer('quota_low_watermark', { fallback: 80, max: 100 })
  if (lowWatermark > highWatermark) files.refuse('quota_low_watermark', 'must not be above quota_high_watermark')
  return quota === 0 ? undefined : { quota, highWatermark, lowWatermark }
}

function readRafs(fields: Fields, batchSizeKey: string): Omit<RafsConfig, 'validate' | 'prefetch'> {
  const mode = fields.string('mode', 'direct')
  if (mode !== 'direct' && mode !== 'cached') return fields.refuse('mode', 'must be direct or cached')
  return {
    mode,
    batchSize: fields.integer(batchSizeKey, { fallback: MiB, max: MAX_BATCH_SIZE }),
    enableXattr: fields.boolean('enable_xattr', false),
    iostatsFiles: fields.boolean('iostats_files', false),
    accessPattern: fields.boolean('access_pattern', false),
    latestReadFiles: fields.boolean('latest_read_files', false),
  }
}

function prefetchDefaults(prefetchAll: boolean): PrefetchConfig {
  return { enable: false, threads: 8, batchSize: MiB, bandwidthLimit: 0, prefetchAll, streamPrefetch: false, backgroundDownload: false }
}

function readPrefetchV2(fields: Fields | undefined): PrefetchConfig {
  if (fields === undefined) return prefetchDefaults(false)
  return readPrefetch(fields, { enable: fields.boolean('enable'), threads: 'threads', batchSize: 'batch_size', bandwidthLimit: 'bandwidth_limit', prefetchAll: false })
}

// COMPAT: prefetch_all is true by default in version 1, false in version 2
function readPrefetchV1(fields: Fields | undefined): PrefetchConfig {
  if (fields === undefined) return prefetchDefaults(true)
  return readPrefetch(fields, { enable: fields.boolean('enable', false), threads: 'threads_count', batchSize: 'merging_size', bandwidthLimit: 'bandwidth_rate', prefetchAll: true })
}

interface PrefetchKeys { readonly enable: boolean; readonly threads: string; readonly batchSize: string; readonly bandwidthLimit: string; readonly prefetchAll: boolean }

function readPrefetch(fields: Fields, keys: PrefetchKeys): PrefetchConfig {
  // COMPAT: limits count only for a prefetch that is enabled
  const threads = fields.integer(keys.threads, { fallback: 8, max: keys.enable ? MAX_THREADS : Number.MAX_SAFE_INTEGER })
  if (keys.enable && threads === 0) fields.refuse(keys.threads, 'must not be 0')
  return {
    enable: keys.enable,
    threads,
    batchSize: fields.integer(keys.batchSize, { fallback: MiB, max: keys.enable ? MAX_BATCH_SIZE : Number.MAX_SAFE_INTEGER }),
    bandwidthLimit: fields.integer(keys.bandwidthLimit, { fallback: 0, max: MAX_U32 }),
    prefetchAll: fields.boolean('prefetch_all', keys.prefetchAll),
    streamPrefetch: fields.boolean('stream_prefetch', false),
    backgroundDownload: fields.boolean('background_download', false),
  }
}

// The backends of a configuration.
// SPEC: spec-surface.md B.3 backend.*; defaults as nydus api/src/config.rs.

import type { Fields } from './fields.ts'
import { readHttp, readScheme, readText, shownHttp, withoutUser, type HttpConfig } from './http-config.ts'
import { readRegistry, shownRegistry, type RegistryConfig } from './registry-config.ts'

export interface LocalfsConfig { readonly type: 'localfs'; readonly blobFile: string; readonly dir: string; readonly altDirs: readonly string[] }

export interface LocaldiskConfig { readonly type: 'localdisk'; readonly devicePath: string; readonly disableGpt: boolean }

/** A bucket of an object store. Without keys requests are not signed. */
export interface BucketConfig extends HttpConfig {
  readonly scheme: 'https' | 'http'
  readonly endpoint: string
  readonly bucketName: string
  /** Before each blob id, a folder for example. */
  readonly objectPrefix: string
  readonly accessKeyId: string
  readonly accessKeySecret: string
}
export interface OssConfig extends BucketConfig { readonly type: 'oss' }
export interface S3Config extends BucketConfig { readonly type: 's3'; readonly region: string }

export interface HttpProxyConfig extends HttpConfig {
  readonly type: 'http-proxy'
  /** http://, https://, or the absolute path of a Unix socket. */
  readonly addr: string
  readonly path: string
}

/** A module of the user's that makes a backend (docs/backends.md). */
export interface ModuleConfig { readonly type: 'module'; readonly path: string; readonly config: unknown }

export type BackendConfig = LocalfsConfig | LocaldiskConfig | RegistryConfig | OssConfig | S3Config | HttpProxyConfig | ModuleConfig

const READERS: Readonly<Record<BackendConfig['type'], (fields: Fields, imagePullAuth: string | undefined) => BackendConfig>> = {
  localfs: readLocalfs,
  localdisk: (fields) => ({ type: 'localdisk', devicePath: readText(fields, 'device_path'), disableGpt: fields.boolean('disable_gpt', false) }),
  registry: readRegistry,
  oss: (fields) => ({ type: 'oss', ...readBucket(fields), endpoint: readText(fields, 'endpoint') }),
  s3: (fields) => ({ type: 's3', ...readBucket(fields), endpoint: fields.string('endpoint', '') || 's3.amazonaws.com', region: readText(fields, 'region') }),
  'http-proxy': readHttpProxy,
  module: (fields) => ({ type: 'module', path: readText(fields, 'path'), config: fields.raw('config') }),
}

/** `fields`: the table of the backend, with `parent` around it for messages. CONFIG_INVALID. */
export function readBackend(type: string, fields: Fields | undefined, { parent, imagePullAuth, version }: { readonly parent: Fields; readonly imagePullAuth: string | undefined; readonly version: 1 | 2 }): BackendConfig {
  if (!isBackendType(type)) return parent.refuse('type', `must be one of ${Object.keys(READERS).join(', ')}`)
  // COMPAT: version 1 never had it
  if (type === 'http-proxy' && version === 1) parent.refuse('type', '"http-proxy" needs a configuration of version 2')
  if (fields === undefined) return parent.refuse(type, 'is missing (version 1: config)')
  return READERS[type](fields, imagePullAuth)
}

/** As version 2 writes it, without secrets. */
export function shownBackend(backend: BackendConfig): object {
  return { type: backend.type, [backend.type]: shownFields(backend) }
}

function shownFields(backend: BackendConfig): object {
  switch (backend.type) {
    case 'localfs': return { blob_file: backend.blobFile, dir: backend.dir, alt_dirs: backend.altDirs }
    case 'localdisk': return { device_path: backend.devicePath, disable_gpt: backend.disableGpt }
    case 'registry': return shownRegistry(backend)
    case 'oss': return shownBucket(backend)
    case 's3': return { ...shownBucket(backend), region: backend.region }
    case 'http-proxy': return { addr: backend.addr.startsWith('/') ? backend.addr : withoutUser(backend.addr), path: backend.path, ...shownHttp(backend) }
    case 'module': return { path: backend.path } // what its configuration holds, only the module knows
  }
}

// The keys are credentials: neither is shown.
function shownBucket(backend: BucketConfig): object {
  const { scheme, endpoint, bucketName, objectPrefix } = backend
  return { scheme, endpoint, bucket_name: bucketName, object_prefix: objectPrefix, ...shownHttp(backend) }
}

function isBackendType(type: string): type is BackendConfig['type'] {
  return Object.hasOwn(READERS, type)
}

function readLocalfs(fields: Fields): LocalfsConfig {
  const config = { type: 'localfs', blobFile: fields.string('blob_file', ''), dir: fields.string('dir', ''), altDirs: fields.strings('alt_dirs') } as const
  if (config.blobFile === '' && config.dir === '') fields.refuse('dir', 'or blob_file must be given')
  return config
}

function readBucket(fields: Fields): Omit<BucketConfig, 'endpoint'> {
  return {
    ...readHttp(fields), scheme: readScheme(fields, 'scheme', 'https'), bucketName: readText(fields, 'bucket_name'), objectPrefix: fields.string('object_prefix', ''),
    accessKeyId: fields.string('access_key_id', ''), accessKeySecret: fields.string('access_key_secret', ''),
  }
}

function readHttpProxy(fields: Fields): HttpProxyConfig {
  const addr = readText(fields, 'addr')
  if (!addr.startsWith('/') && !(/^https?:\/\//.test(addr) && URL.canParse(addr))) fields.refuse('addr', 'must be an http:// or https:// address or the absolute path of a Unix socket')
  return { type: 'http-proxy', ...readHttp(fields), addr, path: fields.string('path', '') }
}

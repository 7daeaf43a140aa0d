// The backends that are not files, each loaded by those who use it: a daemon's start must not pay for the others.

import { CodedError } from '../../core/errors.ts'
import type { BackendConfig, HttpProxyConfig, LocalfsConfig, OssConfig, S3Config } from '../config/backend-config.ts'
import type { RegistryConfig } from '../config/registry-config.ts'
import type { BlobBackend } from './backend.ts'
import type { HttpClient } from './http-backend.ts'
import { LocalfsBackend } from './localfs.ts'
import type { RangeFetcher } from './ranged.ts'

/** What the layers beside this one provide: `Transport` and `createRangeFetcher` of src/registry, wired up by whoever may import them. */
export interface NetworkParts {
  httpClient(config: S3Config | OssConfig | HttpProxyConfig): Promise<HttpClient>
  rangeFetcher(config: RegistryConfig): Promise<RangeFetcher>
}

/** The backend of `config`. CONFIG_INVALID when a module makes none. */
export async function createBackend(config: BackendConfig, network: NetworkParts): Promise<BlobBackend> {
  switch (config.type) {
    case 'localfs': return localfs(config)
    case 'localdisk': return new (await import('./localdisk.ts')).LocaldiskBackend(config)
    case 'registry': return new (await import('./ranged.ts')).RangedBackend(await network.rangeFetcher(config))
    case 'module': return await fromModule(config.path, config.config)
    default: return new (await import('./http-backend.ts')).HttpBackend(await serverOf(config), await network.httpClient(config))
  }
}

function localfs({ blobFile, dir, altDirs }: LocalfsConfig): LocalfsBackend {
  return new LocalfsBackend({ blobFile, dir, altDirs })
}

async function serverOf(config: S3Config | OssConfig | HttpProxyConfig) {
  switch (config.type) {
    case 's3': return (await import('./s3.ts')).s3Server(config)
    case 'oss': return (await import('./oss.ts')).ossServer(config)
    case 'http-proxy': return (await import('./http-proxy.ts')).httpProxyServer(config)
  }
}

async function fromModule(file: string, config: unknown): Promise<BlobBackend> {
  const path = await import('node:path')
  if (!path.isAbsolute(file)) throw new CodedError('CONFIG_INVALID', `backend.module.path ${file} must be absolute`, { path: file })
  const { pathToFileURL } = await import('node:url')
  const loaded: unknown = await import(pathToFileURL(file).href).catch((cause: unknown) => {
    throw new CodedError('CONFIG_INVALID', `backend.module.path ${file} cannot be loaded: ${cause instanceof Error ? cause.message : ''}`, { path: file }, { cause })
  })
  const create: unknown = typeof loaded === 'object' && loaded !== null && 'createBackend' in loaded ? loaded.createBackend : undefined
  const made: unknown = typeof create === 'function' ? await create(config) : undefined
  if (!isBackend(made)) throw new CodedError('CONFIG_INVALID', `backend.module.path ${file} exports no createBackend that returns a backend`, { path: file })
  return made
}

function isBackend(value: unknown): value is BlobBackend {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'
    && 'open' in value && typeof value.open === 'function' && 'close' in value && typeof value.close === 'function'
}

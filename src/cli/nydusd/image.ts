// From options and configuration to an opened image: the only place of nydusd that builds backends.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { type BackendConfig, type DaemonConfig, localDirectoryConfig, parseDaemonConfig, type RegistryConfig, shownConfig } from '../../format/config/daemon-config.ts'
import { RafsImage } from '../../rafs/index.ts'
import type { MountedImage } from '../../serve/index.ts'
import { type BlobBackend, LocalfsBackend, RangedBackend } from '../../storage/index.ts'
import type { OptionName } from './options.ts'

/** What is to be mounted, or undefined without a bootstrap; only with one is the configuration read. @throws CONFIG_INVALID, FORMAT_*, RAFS_NOT_FOUND */
export async function openMountedImage(values: ReadonlyMap<OptionName, string>, { signal }: { readonly signal: AbortSignal }): Promise<(MountedImage & { readonly settings: DaemonConfig }) | undefined> {
  const bootstrap = values.get('bootstrap')
  if (bootstrap === undefined) return undefined
  const { config, settings } = configurationOf(values)
  const image = await openImage(path.resolve(bootstrap), settings, signal)
  return { mountpoint: '/', image, bootstrap: path.resolve(bootstrap), config, shownConfig: shownConfig(settings), settings }
}

function configurationOf(values: ReadonlyMap<OptionName, string>): { config: string; settings: DaemonConfig } {
  const directory = values.get('localfs-dir')
  if (directory !== undefined) {
    const settings = localDirectoryConfig(path.resolve(directory))
    return { config: JSON.stringify(shownConfig(settings)), settings }
  }
  const file = values.get('config')
  if (file === undefined) throw new CodedError('CONFIG_INVALID', 'an image needs --config or --localfs-dir: where are its blobs?')
  const config = readText(file)
  return { config, settings: parseDaemonConfig(config, { auth: process.env['IMAGE_PULL_AUTH'] }) }
}

async function openImage(bootstrap: string, { id, backend, cache, prefetch }: DaemonConfig, signal: AbortSignal): Promise<RafsImage> {
  const opened = await openBackend(backend)
  try {
    return await RafsImage.open({
      bootstrap, backend: opened, cacheDirectory: path.resolve(cache.workDir), id, prefetchThreads: prefetch.threads, signal,
      ...(backend.type === 'registry' && { retry: { retries: backend.retryLimit, timeoutMs: backend.timeoutSeconds * 1000 } }),
    })
  } catch (error) {
    await opened.close()
    throw error
  }
}

async function openBackend(config: BackendConfig): Promise<BlobBackend> {
  if (config.type === 'localfs') return new LocalfsBackend({ blobFile: config.blobFile, dir: config.dir, altDirs: config.altDirs })
  return new RangedBackend(await rangeFetcherOf(config))
}

// Loaded when it is needed: an HTTP client is a third of a start.
async function rangeFetcherOf(config: RegistryConfig) {
  const { createRangeFetcher, decodeBasic } = await import('../../registry/index.ts')
  const credentials = config.registryToken !== '' ? { kind: 'bearer' as const, token: config.registryToken } : config.auth === '' ? undefined : decodeBasic(config.auth)
  if (config.auth !== '' && credentials === undefined) throw new CodedError('CONFIG_INVALID', 'backend.registry.auth must be base64 of user:password', { key: 'backend.registry.auth' })
  return createRangeFetcher({ host: config.host, repository: config.repo }, {
    plainHttp: config.scheme === 'http', insecure: config.skipVerify, caFiles: config.caCertFiles, credentials,
    ...(config.proxyUrl !== '' && { env: { ...process.env, HTTPS_PROXY: config.proxyUrl, HTTP_PROXY: config.proxyUrl } }),
  })
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `cannot read the configuration ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

// From nydusd's configuration to an opened image.

import path from 'node:path'
import { createBackend, type BackendConfig, type NetworkParts, type NydusConfig, type PrefetchConfig, type RetryPolicy } from '../storage/index.ts'
import { READ_DEADLINE_MS, readDeadlineOf } from './deadline.ts'
import { RafsImage } from './image.ts'

export interface ConfiguredImageOptions {
  readonly bootstrap: string | Uint8Array
  /** Name in metrics; default the configuration's. */
  readonly id?: string
  /** In place of what the configuration says. */
  readonly verify?: boolean | 'where-possible'
  /** Called for backends behind a network only, so that others need not load it. */
  readonly network: NetworkParts
  readonly signal: AbortSignal
}

/** Attempts of a backend of the user's, which says nothing of deadlines. */
const MODULE_RETRIES = 3

/** Opens `bootstrap` with backend, cache and limits of `config`. See `RafsImage.open`. */
export async function openConfiguredImage(config: NydusConfig, { bootstrap, id = config.id, verify = config.cache.validate !== false, network, signal }: ConfiguredImageOptions): Promise<RafsImage> {
  const backend = await createBackend(config.backend, network)
  try {
    return await RafsImage.open({
      bootstrap, backend, id, signal, retry: retryOf(config.backend), readDeadlineMs: readDeadlineOf(config.backend),
      ...(config.cache.workDir !== undefined && { cacheDirectory: path.resolve(config.cache.workDir) }),
      ...(config.cache.encryption !== undefined && { cacheEncryption: config.cache.encryption }),
      ...(config.cache.limits !== undefined && { cacheLimits: config.cache.limits }),
      verify,
      amplifyBytes: config.rafs.batchSize,
      prefetchThreads: prefetchOf(config).threads,
    })
  } catch (error) {
    await backend.close()
    throw error
  }
}

/** The prefetch that counts: the file system's where it is enabled, else the cache's. */
export function prefetchOf({ rafs, cache }: NydusConfig): PrefetchConfig {
  return rafs.prefetch.enable ? rafs.prefetch : cache.prefetch
}

/** A file that cannot be read now cannot be read in a second; whatever lies behind a network is tried for as long as a read may take. */
function retryOf(config: BackendConfig): RetryPolicy {
  switch (config.type) {
    case 'localfs': case 'localdisk': return { retries: 0, timeoutMs: 0 }
    case 'module': return { retries: MODULE_RETRIES, timeoutMs: 0 }
    default: return { retries: config.retryLimit, timeoutMs: config.timeoutMs, patienceMs: readDeadlineOf(config) - 0.8 * Math.min(config.timeoutMs, READ_DEADLINE_MS) }
  }
}

// From nydusd's configuration to an opened image.

import path from 'node:path'
import { createBackend, type BackendConfig, type NetworkParts, type NydusConfig, type PrefetchConfig, type RetryPolicy } from '../storage/index.ts'
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

/** LIMIT: a registry that restarts, a connection that is reset: gone after this many attempts more, also where the configuration says fewer. */
const MIN_RETRIES = 3

/** Opens `bootstrap` with backend, cache and limits of `config`. See `RafsImage.open`. */
export async function openConfiguredImage(config: NydusConfig, { bootstrap, id = config.id, verify = config.cache.validate !== false, network, signal }: ConfiguredImageOptions): Promise<RafsImage> {
  const backend = await createBackend(config.backend, network)
  try {
    return await RafsImage.open({
      bootstrap, backend, id, signal, retry: retryOf(config.backend),
      ...(config.cache.workDir !== undefined && { cacheDirectory: path.resolve(config.cache.workDir) }),
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

function retryOf(config: BackendConfig): RetryPolicy {
  switch (config.type) {
    case 'localfs': case 'localdisk': return { retries: 0, timeoutMs: 0 } // a file that cannot be read now cannot be read in a second
    case 'module': return { retries: MIN_RETRIES, timeoutMs: 0 } // what it waits for, and how long, it knows itself
    default: return { retries: Math.max(MIN_RETRIES, config.retryLimit), timeoutMs: config.timeoutMs }
  }
}

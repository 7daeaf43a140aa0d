// A configuration as the daemon's API shows it: version 2, whatever it was written in, and without a secret.

import { shownBackend } from './backend-config.ts'
import type { CacheConfig, NydusConfig, PrefetchConfig } from './config.ts'

/** SPEC: nydus api/src/config.rs clone_without_secrets; nydusctl parses it as a configuration again. */
export function shownConfig({ id, backend, cache, rafs, overlay }: NydusConfig): object {
  return {
    version: 2,
    id,
    backend: shownBackend(backend),
    external_backends: [],
    cache: {
      type: cache.workDir === undefined ? 'dummycache' : 'blobcache', compressed: false, validate: cache.validate ?? true,
      prefetch: shownPrefetch(cache.prefetch),
      ...(cache.workDir !== undefined && { filecache: shownFiles(cache.workDir, cache) }),
    },
    rafs: {
      mode: rafs.mode, batch_size: rafs.batchSize, validate: rafs.validate, enable_xattr: rafs.enableXattr, iostats_files: rafs.iostatsFiles,
      access_pattern: rafs.accessPattern, latest_read_files: rafs.latestReadFiles, prefetch: shownPrefetch(rafs.prefetch),
    },
    ...(overlay && { overlay: { upper_dir: overlay.upperDir, work_dir: overlay.workDir } }),
  }
}

function shownFiles(workDir: string, { limits, encryption }: CacheConfig): object {
  return {
    work_dir: workDir, disable_indexed_map: false, enable_encryption: encryption !== undefined, enable_convergent_encryption: encryption?.convergent ?? false, encryption_key: '',
    ...(limits && { quota: limits.quota, quota_high_watermark: limits.highWatermark, quota_low_watermark: limits.lowWatermark }),
  }
}

function shownPrefetch({ enable, threads, batchSize, bandwidthLimit, prefetchAll, streamPrefetch, backgroundDownload }: PrefetchConfig): object {
  return { enable, threads, batch_size: batchSize, bandwidth_limit: bandwidthLimit, prefetch_all: prefetchAll, stream_prefetch: streamPrefetch, ...(backgroundDownload && { background_download: true }) }
}

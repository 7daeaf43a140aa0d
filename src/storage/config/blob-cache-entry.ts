// A blob cache entry: an image as upstream's fscache, NBD and export services are told of it. SPEC: spec-surface.md B.3 BlobCacheEntry;
// nydus api/src/config.rs BlobCacheEntry. Its configuration is turned into one that `parseConfig` knows.

import { CodedError } from '../../core/errors.ts'
import { parseConfig, parseText, type NydusConfig } from './config.ts'
import { Fields } from './fields.ts'

export interface BlobCacheEntry {
  readonly id: string
  /** Path of the bootstrap. */
  readonly metadataPath: string
  readonly config: NydusConfig
}

/** Parses an entry of type `bootstrap`, JSON or TOML. CONFIG_INVALID; the message names the key. */
export async function parseBlobCacheEntry(text: string): Promise<BlobCacheEntry> {
  const fields = new Fields(await parseText(text), '')
  const type = fields.string('type')
  if (type === 'datablob') fields.refuse('type', 'must be bootstrap: a data blob alone is no image')
  if (type !== 'bootstrap') fields.refuse('type', 'must be bootstrap or datablob')
  const configuration = fields.table('config_v2') ?? fields.table('config')
  if (configuration === undefined) throw new CodedError('CONFIG_INVALID', 'configuration: config_v2 is missing (older: config)', { key: 'config_v2' })
  const metadataPath = configuration.string('metadata_path', '')
  if (metadataPath === '') configuration.refuse('metadata_path', 'must name a bootstrap')
  const plain = fields.has('config_v2') ? current(configuration) : legacy(configuration)
  return { id: fields.string('id'), metadataPath, config: await parseConfig(JSON.stringify(plain)) }
}

/** Version 2. COMPAT: an entry for fscache has its directory under that name. */
function current({ values }: Fields): object {
  const cache = typeof values['cache'] === 'object' ? { ...values['cache'] } as Record<string, unknown> : undefined // SAFETY: a copy of a parsed object
  return { ...values, ...(cache?.['type'] === 'fscache' && { cache: { ...cache, type: 'filecache', filecache: cache['fscache'] } }) }
}

/** The flat older form as a configuration of version 1. */
function legacy({ values }: Fields): object {
  const { id, backend_type, backend_config, cache_type, cache_config, prefetch_config } = values
  const cache = { type: cache_type === 'fscache' ? 'blobcache' : cache_type, config: cache_config }
  return { mode: 'direct', device: { id, backend: { type: backend_type, config: backend_config }, cache }, fs_prefetch: prefetch_config }
}

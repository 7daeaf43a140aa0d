// Packs and merges layers in this process: image/ asks, build/ does. No child processes, no temporary files.

import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { mergeLayers, type NamedBootstrap, packLayer, parsePrefetchPatterns, type PrefetchOptions } from '../build/index.ts'
import { splitDigest } from '../format/oci/digest.ts'
import type { LayerBuilder, PackSettings } from '../image/index.ts'
import { packageVersion } from './package-version.ts'

/** The builder of this package. */
export function inProcessBuilder(): LayerBuilder {
  return {
    version: packageVersion(),
    async pack(tar, { settings, sink, threads, signal }) {
      const { compressor, chunkSize, batchSize } = settings
      await packLayer({
        source: tar, signal,
        sink: { write: (bytes) => sink.write(bytes), commit: async () => {}, abort: async () => {} },
        options: { compressor, digester: 'blake3', chunkSize, batchSize, prefetch: prefetchOf(settings), chunkDict: await dictionaryOf(settings), threads },
      })
    },
    async merge(layers, { settings, signal }) {
      signal.throwIfAborted()
      // COMPAT: upstream's converter tells the merge no sizes of such layers; with them the bootstrap would be another one
      const named = layers.map(({ digest, bootstrap }) => ({ name: splitDigest(digest).hex, bytes: bootstrap }))
      const { bootstrap, blobs } = await mergeLayers(named, { prefetch: prefetchOf(settings), chunkDict: await dictionaryOf(settings) })
      return { bootstrap, blobs }
    },
  }
}

function prefetchOf({ prefetchPatterns }: PackSettings): PrefetchOptions {
  return prefetchPatterns === '' ? { policy: 'none', patterns: [] } : { policy: 'fs', patterns: parsePrefetchPatterns(prefetchPatterns) }
}

async function dictionaryOf({ chunkDict }: PackSettings): Promise<NamedBootstrap | undefined> {
  return chunkDict === undefined ? undefined : { name: path.basename(chunkDict.path), bytes: await readFile(chunkDict.path) }
}

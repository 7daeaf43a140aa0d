// Packs and merges layers in this process: image/ asks, build/ does. No child processes, no temporary files.

import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { createImage, mergeLayers, type NamedBootstrap, parsePrefetchPatterns, type PrefetchOptions } from '../build/index.ts'
import { splitDigest } from '../format/oci/digest.ts'
import type { LayerBuilder, PackSettings } from '../image/index.ts'
import { packageVersion } from './package-version.ts'

/** The builder of this package. */
export function inProcessBuilder(): LayerBuilder {
  return {
    version: packageVersion(),
    async pack(tar, { settings, sink, signal }) {
      const { compressor, chunkSize, batchSize } = settings
      await createImage({
        source: { type: 'tar', stream: tar, allowForeignLinks: true },
        sink: { write: (bytes) => sink.write(bytes), commit: async () => {}, abort: async () => {} },
        compressor, digester: 'blake3', chunkSize, batchSize, inlineMeta: true, blobToc: true, explicitUidGid: true,
        whiteoutSpec: 'none', // whiteouts stay: they are meant for the layers below
        prefetch: prefetchOf(settings), chunkDict: await dictionaryOf(settings), signal,
      })
    },
    async merge(layers, { settings, signal }) {
      signal.throwIfAborted()
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

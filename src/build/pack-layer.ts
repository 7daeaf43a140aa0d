// One layer of an OCI image as a blob with its bootstrap inside, for whole-image conversion: streams in, streams out.
// SPEC: nydus-snapshotter pkg/converter Pack; spec-surface.md A.10 #1.

import type { BlobSink } from './blob-sink.ts'
import { type CreateOptions, createImage, type WrittenBlob } from './create.ts'
import type { TarOptions } from './tar-source.ts'

export interface PackOptions extends Pick<TarOptions, 'onDigest'> {
  /** The layer: tar, plain or gzip or zstd. Read to its end. */
  readonly source: AsyncIterable<Uint8Array>
  /** Takes the blob; committed or aborted by `packLayer`. */
  readonly sink: BlobSink
  readonly options: Pick<CreateOptions, 'compressor' | 'digester' | 'chunkSize' | 'batchSize' | 'chunkDict' | 'prefetch' | 'threads'>
  readonly signal: AbortSignal
  readonly onProgress?: CreateOptions['onProgress']
}

/** What `mergeLayers` takes, but for the name, and what else is known of the blob. Digests are lower hex. */
export interface PackedLayer extends Omit<WrittenBlob, 'digest' | 'size'> {
  /** The bootstrap inside the blob. */
  readonly bytes: Uint8Array
  /** sha256 of the blob's file: its digest in a registry. */
  readonly blobDigest: string
  /** Bytes of the blob's file. */
  readonly blobSize: number
  /** Ids of the blobs that the layer refers to; its own is the one that is not in the dictionary. */
  readonly blobs: readonly string[]
}

/**
 * Packs a layer as upstream's converter has it packed: whiteouts kept, owners kept, bootstrap inlined, with a TOC. What has no entry of its own
 * in the layer is marked for `mergeLayers`. Errors and memory as `createImage`.
 */
export async function packLayer({ source, sink, options, signal, onProgress, onDigest }: PackOptions): Promise<PackedLayer> {
  const { bootstrap, blob, blobs } = await createImage({
    ...options, sink, signal, onProgress, inlineMeta: true, blobToc: true, explicitUidGid: true, whiteoutSpec: 'none',
    source: { type: 'tar', stream: source, allowForeignLinks: true, onDigest },
  })
  const { digest, size, ...rest } = blob! // with an inlined bootstrap there is one
  return { ...rest, bytes: bootstrap, blobDigest: digest, blobSize: size, blobs }
}

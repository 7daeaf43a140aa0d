// One layer of an OCI image as a blob with its bootstrap inside, for whole-image conversion: streams in, streams out.
// SPEC: nydus-snapshotter pkg/converter Pack; spec-surface.md A.10 #1.

import type { BlobSink } from './blob-sink.ts'
import { type CreateOptions, createImage, type WrittenBlob } from './create.ts'
import type { SourceDigests } from './tar-source.ts'

export interface PackOptions {
  /** The layer: tar, plain or gzip or zstd. Read to its end. */
  readonly source: AsyncIterable<Uint8Array>
  /** Takes the blob; committed or aborted by `packLayer`. */
  readonly sink: BlobSink
  readonly options: Pick<CreateOptions, 'compressor' | 'digester' | 'chunkSize' | 'batchSize' | 'chunkDict' | 'prefetch' | 'threads'>
  readonly signal: AbortSignal
  readonly onProgress?: CreateOptions['onProgress']
}

/** The blob and what its source was. `bootstrap` is the one inside the blob, for `mergeLayers`. */
export interface PackedLayer extends WrittenBlob, SourceDigests {
  readonly bootstrap: Uint8Array
  /** sha256 of the source as it came, lower hex. */
  readonly digest: string
  /** sha256 of the blob's file, lower hex: its digest in a registry. */
  readonly blobDigest: string
  /** Bytes of the blob's file. */
  readonly blobSize: number
  /** Bytes of the source as it came. */
  readonly size: number
  /** Ids of the blobs that the layer refers to; its own is the one that is not in the dictionary. */
  readonly blobs: readonly string[]
}

/**
 * Packs a layer as upstream's converter has it packed: whiteouts kept, owners kept, bootstrap inlined, with a TOC. What has no entry of its own
 * in the layer is marked for `mergeLayers`. Errors and memory as `createImage`.
 */
export async function packLayer({ source, sink, options, signal, onProgress }: PackOptions): Promise<PackedLayer> {
  let digests: SourceDigests | undefined
  const { bootstrap, blob, blobs } = await createImage({
    ...options, sink, signal, onProgress, inlineMeta: true, blobToc: true, explicitUidGid: true, whiteoutSpec: 'none',
    source: { type: 'tar', stream: source, allowForeignLinks: true, onDigest: (found) => { digests = found } },
  })
  // Both are there: a stream that ended was digested, and a blob with an inlined bootstrap is never empty.
  return { ...blob!, ...digests!, blobDigest: blob!.digest, blobSize: blob!.size, bootstrap, blobs }
}

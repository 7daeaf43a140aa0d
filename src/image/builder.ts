// What image/ wants from whoever builds: rank 4 does not know rank 4, so cli and library pass an implementation in
// (in process over build/, or upstream's nydus-image as a child).

import type { Digest } from '../format/oci/digest.ts'

/** How layers are packed. Everything here changes the bytes of a blob, so finished layers are kept by these, too. */
export interface PackSettings {
  readonly compressor: 'none' | 'lz4_block' | 'zstd'
  /** Bytes, a power of two. */
  readonly chunkSize: number
  /** Bytes; 0: no batches. */
  readonly batchSize: number
  readonly alignedChunk: boolean
  /** Absolute paths in the image, one a line: fetched first at mount. Empty: none. */
  readonly prefetchPatterns: string
  /** File of a bootstrap whose chunks are not stored again; its sha256 identifies it. */
  readonly chunkDict: { readonly path: string; readonly digest: Digest } | undefined
}

/** Where a packed layer goes: called in order, each call awaited. */
export interface BlobSink { write(chunk: Uint8Array): Promise<void> }

/** One packed layer in a merge. */
export interface MergeLayer {
  /** Digest and size of the whole packed layer; its hex is the blob's id in the merged bootstrap. */
  readonly digest: Digest
  readonly size: number
  /** The bootstrap that was inlined in it. */
  readonly bootstrap: Uint8Array
}

export interface MergedImage {
  readonly bootstrap: Uint8Array
  /** Ids (hex) of the final blob table, in its order: dictionary blobs that are used, then layers that have data. */
  readonly blobs: readonly string[]
}

export interface BuilderOptions {
  readonly settings: PackSettings
  /** A directory for temporary files, removed after the conversion. */
  readonly scratch: string
  /** Threads that one layer may keep busy: others are packed at the same time. */
  readonly threads: number
  readonly signal: AbortSignal
}

/** Turns layers into blobs and bootstraps. Every method throws the codes of build/ and the signal's reason. */
export interface LayerBuilder {
  /** What the manifest's builder-version annotation says. */
  readonly version: string
  /**
   * Packs an uncompressed layer tar (pieces are good until the next one is asked for) into one blob: chunks, chunk information, bootstrap, table of contents, as tar-like entries.
   * Whiteouts stay as they are: `merge` applies them.
   */
  pack(tar: AsyncIterable<Uint8Array>, options: BuilderOptions & { readonly sink: BlobSink }): Promise<void>
  /** Applies the layers on each other, lowest first. */
  merge(layers: readonly MergeLayer[], options: BuilderOptions): Promise<MergedImage>
}

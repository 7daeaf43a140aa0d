// Lays the layers of an image over each other: their bootstraps become one. Linear in the number of files.
// SPEC: nydus builder/src/merge.rs; spec-rafs.md D "merge", A.6.

import { CodedError } from '../core/errors.ts'
import { BLOB_FEATURE, COMPRESSORS, type CompressorName, DIGESTERS } from '../format/rafs-v6/blob-table.ts'
import type { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { type BlobDescription, writeBootstrap } from '../format/rafs-v6/bootstrap-writer.ts'
import { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import { type ImageNode, LAYER_MARK, type WalkOrder, walkOrder } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import type { NamedBootstrap } from './create.ts'
import { loadTree, openBootstrap, referredBlob } from './load-tree.ts'
import { lowestLayer, overlay } from './overlay.ts'
import { matchPrefetch, type PrefetchOptions } from './prefetch.ts'
import { Trace, type TraceOutput } from './trace.ts'

/** A layer's bootstrap, and what is known of its blob from outside (its bootstrap could not know it). Digests are lower hex. */
export interface MergeLayer extends NamedBootstrap {
  /** Id of the blob; default: the name up to the first dot. */
  readonly originalBlobId?: string | undefined
  /** sha256 of the blob's file, which becomes its id. */
  readonly blobDigest?: string | undefined
  readonly blobSize?: number | undefined
  readonly tocDigest?: string | undefined
  readonly tocSize?: number | undefined
}

export interface MergeOptions {
  /** The lowest layer. */
  readonly parent?: NamedBootstrap | undefined
  /** The dictionary that the layers were built with: its blobs are no layer's own. */
  readonly chunkDict?: NamedBootstrap | undefined
  readonly prefetch: PrefetchOptions
  /** The layers' own blob ids are right: their bootstraps were loaded with access to the blobs. */
  readonly blobsAccessible?: boolean | undefined
}

export interface MergeResult {
  readonly bootstrap: Uint8Array
  /** Ids in blob table order; blobs that nothing refers to any more are not among them. */
  readonly blobs: readonly string[]
  readonly compressor: CompressorName
  readonly trace: TraceOutput
}

/**
 * Merges `layers`, lowest first. BUILD_INCONSISTENT when they do not fit together (upstream's exit code 2), BUILD_INVALID_OPTION for none,
 * BUILD_SOURCE for a layer with several blobs of its own or a hard link without target, FORMAT_* for a damaged bootstrap.
 */
export async function mergeLayers(layers: readonly MergeLayer[], options: MergeOptions): Promise<MergeResult> {
  if (layers.length === 0) throw new CodedError('BUILD_INVALID_OPTION', 'source bootstrap list is empty , at least one bootstrap is required')
  const merge = new Merge(options)
  for (const layer of layers) await merge.add(layer)
  return merge.finish()
}

/** What all layers must agree on. */
interface Configuration { readonly chunkSize: number; readonly explicitUidGid: boolean }

class Merge {
  readonly #options: MergeOptions
  readonly #chunks = new ChunkStore()
  readonly #blobs: BlobDescription[] = []
  /** Position in `#blobs` by final id. */
  readonly #positions = new Map<string, number>()
  readonly #dictionaryBlobs = new Set<string>()
  readonly #trace = new Trace()
  #configuration: Configuration | undefined
  #tree: ImageNode | undefined
  #last: BootstrapView | undefined

  constructor(options: MergeOptions) {
    this.#options = options
    const { parent, chunkDict } = options
    if (chunkDict !== undefined) {
      const view = openBootstrap(chunkDict.bytes, chunkDict.name)
      for (const { blobId } of view.blobs) this.#dictionaryBlobs.add(blobId)
      this.#configuration = configurationOf(view)
    }
    if (parent !== undefined) {
      const view = openBootstrap(parent.bytes, parent.name)
      const indexes = view.blobs.map((blob) => this.#addBlob(referredBlob(blob)))
      this.#tree = loadTree(view, { chunks: this.#chunks, blobIndexOf: (index) => indexes[index]! })
    }
  }

  async add(layer: MergeLayer): Promise<void> {
    const view = openBootstrap(layer.bytes, layer.name)
    this.#configuration ??= configurationOf(view)
    checkCompatible(this.#configuration, configurationOf(view))
    this.#last = view
    let own = 0
    const indexes = view.blobs.map((record) => {
      const blob = referredBlob(record)
      if (this.#dictionaryBlobs.has(blob.blobId)) return this.#addBlob(blob)
      if (++own > 1) throw new CodedError('BUILD_SOURCE', `invalid per layer bootstrap, having multiple associated data blobs: ${layer.name}`)
      return this.#addBlob(this.#ownBlob(blob, layer))
    })
    const upper = await this.#trace.time('load_tree_from_bootstrap', () => loadTree(view, { chunks: this.#chunks, blobIndexOf: (index) => indexes[index]! }))
    this.#tree = this.#tree === undefined ? lowestLayer(upper, 'oci') : overlay(this.#tree, upper, 'oci')
  }

  async finish(): Promise<MergeResult> {
    const order = walkOrder(this.#tree!)
    const blobs = this.#usedBlobs(order)
    const { compressor, digester } = this.#last!
    const { chunkSize, explicitUidGid } = this.#configuration!
    // Layers say what is implicit in them; an image has nothing to merge with.
    for (const { inode } of order.nodes) inode.mark = LAYER_MARK.none
    const prefetch = matchPrefetch(order, this.#options.prefetch).table
    const bootstrap = await this.#trace.time('dump_bootstrap', () => writeBootstrap({
      root: this.#tree!, order, chunks: this.#chunks, blobs, chunkSize, explicitUidGid, prefetch, compressor: COMPRESSORS.indexOf(compressor), digester: DIGESTERS.indexOf(digester),
    }))
    return { bootstrap, blobs: blobs.map(({ blobId }) => blobId), compressor, trace: this.#trace.output() }
  }

  #addBlob(blob: BlobDescription): number {
    let position = this.#positions.get(blob.blobId)
    if (position === undefined) this.#positions.set(blob.blobId, position = this.#blobs.push(blob) - 1)
    return position
  }

  /** The layer's blob with what only its file tells. A blob that refers to another file has its digest and size in other fields. */
  #ownBlob(blob: BlobDescription, { name, originalBlobId, blobDigest, blobSize, tocDigest, tocSize }: MergeLayer): BlobDescription {
    if ((blob.features & BLOB_FEATURE.separate) !== 0) throw new CodedError('FORMAT_UNSUPPORTED', `layer ${name}: its blob refers to an OCI layer (zran); this version does not merge those`)
    const named = this.#options.blobsAccessible === true ? blob.blobId : originalBlobId ?? idFromName(name)
    return {
      ...blob,
      blobId: blobDigest ?? named,
      compressedSize: blobSize ?? blob.compressedSize,
      tocDigest: tocDigest === undefined ? blob.tocDigest : Buffer.from(tocDigest, 'hex'),
      tocSize: tocSize ?? blob.tocSize,
    }
  }

  /** The blobs that are still referred to, in order of first use; renumbers the chunks in use. */
  #usedBlobs({ nodes }: WalkOrder): BlobDescription[] {
    const used: BlobDescription[] = []
    const indexes = new Map<number, number>()
    const done = new Uint8Array(this.#chunks.count)
    const use = (id: number) => {
      if (done[id] === 1) return
      done[id] = 1
      const old = this.#chunks.blobIndex(id)
      let index = indexes.get(old)
      if (index === undefined) indexes.set(old, index = used.push(this.#blobs[old]!) - 1)
      this.#chunks.setBlobIndex(id, index)
    }
    for (const { inode: { chunks } } of nodes) {
      if (typeof chunks === 'number') use(chunks)
      else chunks?.forEach(use)
    }
    return used
  }
}

function configurationOf({ chunkSize, explicitIds }: BootstrapView): Configuration {
  return { chunkSize, explicitUidGid: explicitIds }
}

function checkCompatible(want: Configuration, got: Configuration): void {
  if (want.chunkSize !== got.chunkSize) throw new CodedError('BUILD_INCONSISTENT', `Inconsistent RAFS Filesystem: Inconsistent configuration of chunk_size: ${want.chunkSize} vs ${got.chunkSize}`)
  if (want.explicitUidGid !== got.explicitUidGid) throw new CodedError('BUILD_INCONSISTENT', `Inconsistent RAFS Filesystem: Using inconsistent explicit_uidgid setting ${want.explicitUidGid}, target explicit_uidgid setting ${got.explicitUidGid}`)
}

/** Base name up to the first dot. BUILD_SOURCE when that cannot be a blob id. */
function idFromName(name: string): string {
  const id = name.split('/').at(-1)!.split('.')[0]!
  if (id.length === 0 || id.length > 64) throw new CodedError('BUILD_SOURCE', `the name of layer ${name} is no blob id`)
  return id
}

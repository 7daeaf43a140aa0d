// Builds one image, or one layer of one: source → tree and chunks → blob and bootstrap.
// SPEC: nydus builder/src/{directory,tarball,lib}.rs; spec-rafs.md C.1, D.

import { CodedError } from '../core/errors.ts'
import { BLOB_FEATURE, COMPRESSORS, DIGESTERS, type CompressorName, type DigesterName } from '../format/rafs-v6/blob-table.ts'
import { UNKNOWN_BLOB_ID } from '../format/rafs-v6/blob-records.ts'
import type { ChunkInfoBuilder } from '../format/blob/chunk-info-builder.ts'
import { type BlobDescription, writeBootstrap } from '../format/rafs-v6/bootstrap-writer.ts'
import { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import { ImageNode, type WalkOrder, walkOrder } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import type { BlobSink } from './blob-sink.ts'
import { BlobWriter, type MetaPlace } from './blob-writer.ts'
import { ChunkIndex } from './chunk-index.ts'
import { ChunkPipeline, type PipelineTotals } from './chunk-pipeline.ts'
import { ChunkDictionary } from './dictionary.ts'
import { feedFiles, readDirectoryTree } from './directory-source.ts'
import { loadTree, openBootstrap, referredBlob } from './load-tree.ts'
import { overlay, type WhiteoutSpec } from './overlay.ts'
import { matchPrefetch, type PrefetchMatch, type PrefetchOptions } from './prefetch.ts'
import { readTarTree, type TarOptions } from './tar-source.ts'
import { defaultThreads } from './threads.ts'
import { Trace, type TraceOutput } from './trace.ts'

/** A bootstrap in memory and the name of the file it came from: the id of a blob that holds it is that name up to the first dot. */
export interface NamedBootstrap { readonly name: string; readonly bytes: Uint8Array }

export type CreateSource =
  | { readonly type: 'directory'; readonly path: string }
  | ({ readonly type: 'tar' } & TarOptions)

export interface CreateOptions {
  readonly source: CreateSource
  /** Takes the blob. `createImage` commits or aborts it. */
  readonly sink: BlobSink
  readonly compressor: Exclude<CompressorName, 'gzip'>
  readonly digester: DigesterName
  /** Bytes: a power of two from 4 KiB to 16 MiB. */
  readonly chunkSize: number
  /** Bytes: 0 for none, else a power of two from 4 KiB to `chunkSize`. */
  readonly batchSize: number
  /** The bootstrap becomes part of the blob. */
  readonly inlineMeta: boolean
  /** The blob gets a table of contents and an array of chunk digests. */
  readonly blobToc: boolean
  readonly explicitUidGid: boolean
  readonly whiteoutSpec: WhiteoutSpec
  readonly prefetch: PrefetchOptions
  readonly chunkDict?: NamedBootstrap | undefined
  readonly parent?: NamedBootstrap | undefined
  /** Instead of the digest. */
  readonly blobId?: string | undefined
  /** Portions at work at a time; default: as many as CPUs. */
  readonly threads?: number | undefined
  readonly signal: AbortSignal
  /** Source bytes and files so far. */
  readonly onProgress?: ((progress: { readonly bytes: number; readonly files: number }) => void) | undefined
}

export interface CreateResult {
  readonly bootstrap: Uint8Array
  /** A directory build's second image, which would hold external files: its root alone. */
  readonly externalBootstrap: Uint8Array | undefined
  readonly externalBlobs: readonly string[]
  /** Ids in blob table order. */
  readonly blobs: readonly string[]
  /** What was written; undefined when nothing was. */
  readonly blob: WrittenBlob | undefined
  readonly trace: TraceOutput
}

export interface WrittenBlob {
  readonly blobId: string
  /** sha256 of the whole file, lower hex: what a registry calls it. Differs from the id when the blob holds chunk digests. */
  readonly digest: string
  /** Bytes. */
  readonly size: number
  /** sha256 of the table of contents with its tar header, lower hex. */
  readonly tocDigest: string | undefined
  readonly tocSize: number | undefined
  /** Makes the content of a cache's `image/<id>.blob.meta`: chunk information, padded to 4096, and its header. Undefined without chunks. */
  readonly meta: (() => Uint8Array) | undefined
}

/**
 * Runs a build. Equal source and options give equal bytes, whatever `threads`. Memory: about 300 bytes a file, 80 a chunk, and for each
 * thread and one more two buffers of 1 MiB (or of a chunk, if that is larger).
 * BUILD_INVALID_OPTION, BUILD_SOURCE, BUILD_OUTPUT, BUILD_INCONSISTENT (dictionary or parent), TAR_*, CODEC_CORRUPT, FORMAT_*, NATIVE_SYSCALL.
 */
export async function createImage(options: CreateOptions): Promise<CreateResult> {
  try {
    checkOptions(options)
    return await new Build(options).run()
  } catch (error) {
    await options.sink.abort()
    throw error
  }
}

function checkOptions({ signal, chunkSize, batchSize, inlineMeta, blobId, compressor }: CreateOptions): void {
  signal.throwIfAborted()
  const refuse = (why: string) => new CodedError('BUILD_INVALID_OPTION', why)
  const isSize = (size: number) => size >= 0x1000 && size <= 0x100_0000 && Math.log2(size) % 1 === 0
  if (!isSize(chunkSize)) throw refuse(`chunk size ${chunkSize} is not a power of two from 4096 to 16777216`)
  if (batchSize !== 0 && (!isSize(batchSize) || batchSize > chunkSize)) throw refuse(`batch size ${batchSize} is not a power of two from 4096 to the chunk size`)
  if (blobId !== undefined && (inlineMeta || blobId.length === 0 || blobId.length > 64)) throw refuse('a blob id has 1 to 64 characters and is not given to a blob with an inlined bootstrap')
  if (batchSize !== 0 && chunkSize === 0x100_0000 && compressor === 'none') throw refuse('batches with chunks of 16 MiB need a compressor')
}

class Build {
  readonly #options: CreateOptions
  readonly #writer: BlobWriter
  readonly #chunks = new ChunkStore()
  readonly #index = new ChunkIndex(this.#chunks)
  readonly #blobs: (BlobDescription | undefined)[] = []
  readonly #trace = new Trace()
  #files = 0
  #bytes = 0

  constructor(options: CreateOptions) {
    this.#options = options
    this.#writer = new BlobWriter(options.sink, { hasTarHeader: options.inlineMeta || options.blobToc, hasToc: options.blobToc })
  }

  async run(): Promise<CreateResult> {
    const { result, external } = await this.#trace.time('total_build', async () => this.#build())
    this.#trace.event('euid', String(process.geteuid?.() ?? 0))
    this.#trace.event('egid', String(process.getegid?.() ?? 0))
    return { ...result, externalBootstrap: external?.bootstrap, externalBlobs: external?.blobs ?? [], trace: this.#trace.output() }
  }

  async #build() {
    const { source, parent, sink } = this.#options
    const parentTree = parent === undefined ? undefined : await this.#trace.time('load_tree_from_bootstrap', () => this.#loadParent(parent))
    const pipeline = await this.#pipeline()
    let root: ImageNode
    let order: WalkOrder
    let prefetch: PrefetchMatch
    let totals: PipelineTotals
    const finishTree = (tree: ImageNode) => this.#trace.time('build_bootstrap', async () => {
      root = parentTree === undefined ? tree : await this.#trace.time('merge_bootstrap', () => overlay(parentTree, tree, this.#options.whiteoutSpec))
      order = walkOrder(root)
      prefetch = matchPrefetch(order, this.#options.prefetch)
      return { root, order, prefetch }
    })
    try {
      if (source.type === 'tar') {
        const tree = await this.#trace.time('build_tree', () => readTarTree(pipeline, this.#tarOptions(source)))
        totals = await this.#trace.time('dump_blob', () => pipeline.finish());
        ({ root, order, prefetch } = await finishTree(tree))
      } else {
        const tree = await this.#trace.time('build_tree', () => this.#readDirectory(source.path));
        ({ root, order, prefetch } = await finishTree(tree))
        const files = filesToStore(order, prefetch)
        totals = await this.#trace.time('dump_blob', async () => {
          await feedFiles(pipeline, { source: source.path, order, files, chunkSize: this.#options.chunkSize, onFile: (size) => this.#progress(size, 1) })
          return pipeline.finish()
        })
      }
    } catch (error) {
      await pipeline.settled()
      throw error
    }
    this.#trace.count('blob_uncompressed_size', totals.newBytes)
    this.#trace.count('dedup_chunks', totals.dedupChunks)
    this.#trace.count('dedup_uncompressed_size', totals.dedupBytes)
    const result = await this.#store(pipeline, totals, { root, order, prefetch })
    await sink.commit(result.blob?.blobId)
    return { result, external: source.type === 'directory' && !this.#options.inlineMeta ? this.#external(root) : undefined }
  }

  #progress(bytes: number, files: number): void {
    this.#bytes += bytes
    this.#files += files
    this.#options.onProgress?.({ bytes: this.#bytes, files: this.#files })
  }

  async #pipeline(): Promise<ChunkPipeline> {
    const { chunkDict, chunkSize, digester, explicitUidGid, compressor, batchSize, threads, signal } = this.#options
    const dictionary = chunkDict === undefined ? undefined
      : await this.#trace.time('import_chunk_dict', () => ChunkDictionary.load(chunkDict.bytes, { name: chunkDict.name, chunkSize, digester, explicitUidGid }))
    return new ChunkPipeline({
      chunks: this.#chunks, index: this.#index, dictionary, writer: this.#writer, blobs: this.#blobs, chunkSize, batchSize, isV2: batchSize > 0,
      compressor: compressorNumber(compressor), digester: digester === 'blake3' ? 0 : 1, threads: threads ?? defaultThreads(), signal,
    })
  }

  #tarOptions(source: TarOptions): TarOptions & { explicitUidGid: boolean; chunkSize: number; onProgress: (bytes: number, files: number) => void; signal: AbortSignal } {
    const { explicitUidGid, chunkSize, signal } = this.#options
    return { ...source, explicitUidGid, chunkSize, signal, onProgress: (bytes, files) => this.#progress(bytes, files) }
  }

  async #readDirectory(path: string): Promise<ImageNode> {
    const { parent, whiteoutSpec, explicitUidGid, signal } = this.#options
    const { root, entries } = await this.#trace.time('load_from_directory', () =>
      readDirectoryTree({ source: path, dropWhiteouts: parent === undefined ? whiteoutSpec : 'none', explicitUidGid, signal }))
    this.#trace.event('load_from_directory', entries)
    return root
  }

  /** The parent's tree; its blobs lead the table, its chunks are not stored again. */
  #loadParent({ bytes, name }: NamedBootstrap): ImageNode {
    const { chunkSize, explicitUidGid } = this.#options
    const view = openBootstrap(bytes, name)
    if (view.chunkSize !== chunkSize) throw new CodedError('BUILD_INCONSISTENT', `Inconsistent configuration of chunk_size: ${chunkSize} vs ${view.chunkSize}`)
    if (view.explicitIds !== explicitUidGid) throw new CodedError('BUILD_INCONSISTENT', `Using inconsistent explicit_uidgid setting ${explicitUidGid}, target explicit_uidgid setting ${view.explicitIds}`)
    this.#blobs.push(...view.blobs.map(referredBlob))
    const tree = loadTree(view, { chunks: this.#chunks, blobIndexOf: (index) => index })
    for (let id = 0; id < this.#chunks.count; id++) {
      if (view.blobs[this.#chunks.blobIndex(id)]!.digester === this.#options.digester) this.#index.add(id)
    }
    return tree
  }

  async #store(pipeline: ChunkPipeline, totals: PipelineTotals, image: { root: ImageNode; order: WalkOrder; prefetch: PrefetchMatch }): Promise<Omit<CreateResult, 'externalBootstrap' | 'externalBlobs' | 'trace'>> {
    const { inlineMeta } = this.#options
    const writer = this.#writer
    const features = this.#features(totals.chunkCount)
    const place = totals.chunkCount === 0 ? undefined : await this.#storeMeta(pipeline, features, totals.uncompressedSize)
    const { info } = pipeline
    const meta = place && (() => paddedMeta(info, features, place))
    const encode = (blob: BlobDescription | undefined) => this.#trace.time('dump_bootstrap', () => this.#encode(image, totals.blobIndex, blob))
    if (inlineMeta) {
      const bootstrap = await encode(place && this.#describe(totals, place, { blobId: UNKNOWN_BLOB_ID, features, size: writer.position }))
      await writer.writeBootstrap(bootstrap)
      const toc = await writer.writeToc()
      return { bootstrap, blobs: this.#ids(totals.blobIndex, writer.blobId), blob: this.#written(toc, meta, writer.blobId) }
    }
    const toc = place === undefined ? undefined : await writer.writeToc()
    const blobId = this.#options.blobId ?? writer.blobId
    const bootstrap = await encode(place && { ...this.#describe(totals, place, { blobId, features, size: writer.position }), ...toc })
    return { bootstrap, blobs: this.#ids(totals.blobIndex, blobId), blob: place && this.#written(toc, meta, blobId) }
  }

  async #storeMeta({ info, newIds }: ChunkPipeline, features: number, uncompressedSize: number): Promise<MetaPlace> {
    await this.#writer.endData(uncompressedSize)
    const digests = this.#options.blobToc ? this.#digests(newIds) : undefined
    return this.#writer.writeMeta(info, { features, compressor: compressorNumber(this.#options.compressor), digests })
  }

  #features(chunkCount: number): number {
    const { inlineMeta, blobToc, batchSize } = this.#options
    return BLOB_FEATURE.capTarToc
      | (inlineMeta ? BLOB_FEATURE.inlinedFsMeta : 0) | (blobToc ? BLOB_FEATURE.hasToc : 0) | (inlineMeta || blobToc ? BLOB_FEATURE.hasTarHeader : 0)
      | (batchSize > 0 ? BLOB_FEATURE.batch | BLOB_FEATURE.chunkInfoV2 : 0)
      | (chunkCount > 0 ? BLOB_FEATURE.aligned : 0) | (chunkCount > 0 && blobToc ? BLOB_FEATURE.inlinedChunkDigest : 0)
  }

  #digests(newIds: readonly number[]): Uint8Array {
    const digests = new Uint8Array(newIds.length * 32)
    newIds.forEach((id, i) => { digests.set(this.#chunks.record(id).subarray(0, 32), i * 32) })
    return digests
  }

  #describe({ chunkCount, uncompressedSize }: PipelineTotals, place: MetaPlace, { blobId, features, size }: { blobId: string; features: number; size: number }): BlobDescription {
    const { chunkSize, compressor, digester } = this.#options
    return {
      blobId, chunkSize, chunkCount, compressor: COMPRESSORS.indexOf(compressor), digester: DIGESTERS.indexOf(digester), features, compressedSize: size, uncompressedSize,
      tocSize: 0, ...place, tocDigest: new Uint8Array(32), metaDigest: new Uint8Array(32), metaSize: new Uint8Array(8), cipherIv: new Uint8Array(8), cipher: 0,
    }
  }

  #encode({ root, order, prefetch }: { root: ImageNode; order: WalkOrder; prefetch: PrefetchMatch }, blobIndex: number | undefined, blob: BlobDescription | undefined): Uint8Array {
    const { chunkSize, compressor, digester, explicitUidGid } = this.#options
    const blobs = this.#blobs.map((known, i) => (i === blobIndex ? blob! : known!))
    return writeBootstrap({
      root, order, chunks: this.#chunks, blobs, chunkSize, explicitUidGid, prefetch: prefetch.table,
      compressor: COMPRESSORS.indexOf(compressor), digester: DIGESTERS.indexOf(digester),
    })
  }

  #ids(blobIndex: number | undefined, blobId: string): string[] {
    return this.#blobs.map((blob, i) => (i === blobIndex ? blobId : blob!.blobId))
  }

  #written(toc: { tocSize: number; tocDigest: Buffer } | undefined, meta: WrittenBlob['meta'], blobId: string): WrittenBlob {
    return { blobId, digest: this.#writer.fileDigest, size: this.#writer.position, tocDigest: toc?.tocDigest.toString('hex'), tocSize: toc?.tocSize, meta }
  }

  /** COMPAT: upstream writes a second image for external files even when there are none: the root, over the parent if there is one. */
  #external(root: ImageNode): { bootstrap: Uint8Array; blobs: string[] } {
    const { parent, chunkSize, explicitUidGid, compressor, digester, whiteoutSpec } = this.#options
    const chunks = new ChunkStore()
    const alone = new ImageNode('', root.inode)
    const view = parent === undefined ? undefined : openBootstrap(parent.bytes, parent.name)
    const tree = view === undefined ? alone : overlay(loadTree(view, { chunks, blobIndexOf: (index) => index }), alone, whiteoutSpec)
    const blobs = view?.blobs.map(referredBlob) ?? []
    const bootstrap = writeBootstrap({ root: tree, chunks, blobs, chunkSize, explicitUidGid, compressor: COMPRESSORS.indexOf(compressor), digester: DIGESTERS.indexOf(digester) })
    return { bootstrap, blobs: blobs.map(({ blobId }) => blobId) }
  }
}

/** Regular files whose data is not stored yet, each once, prefetched ones first. */
function filesToStore(order: WalkOrder, { first, isFirst }: PrefetchMatch): number[] {
  const files: number[] = []
  const take = (entry: number) => {
    const { inode } = order.nodes[entry]!
    if (!inode.isRegular || inode.size === 0 || inode.loaded || inode.index >= 0) return
    inode.index = entry
    files.push(entry)
  }
  first.forEach(take)
  for (let entry = 0; entry < order.nodes.length; entry++) if (!isFirst(entry)) take(entry)
  return files
}

function paddedMeta(info: ChunkInfoBuilder, features: number, place: MetaPlace): Uint8Array {
  const raw = info.encode()
  const header = info.header({ features, ...place })
  const meta = new Uint8Array(Math.ceil(raw.length / header.length) * header.length + header.length)
  meta.set(raw)
  meta.set(header, meta.length - header.length)
  return meta
}

function compressorNumber(name: CreateOptions['compressor']): 0 | 1 | 3 {
  return name === 'none' ? 0 : name === 'lz4_block' ? 1 : 3
}

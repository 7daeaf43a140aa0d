// Writes a blob front to back and knows its digests on the way.
// SPEC: nydus builder/src/core/{blob,context}.rs, builder/src/lib.rs; spec-rafs.md C.1, C.3, C.8.
//
//   data │ header image.blob │ chunk information │ its header │ header blob.meta │ digests │ header blob.digest │ bootstrap │ header image.boot │ TOC │ header rafs.blob.toc

import { type Hash, createHash } from 'node:crypto'
import { tarHeader } from '../format/blob/tar-header.ts'
import type { ChunkInfoBuilder } from '../format/blob/chunk-info-builder.ts'
import { encodeToc, TOC_FLAG, TOC_NAME, type TocEntry } from '../format/blob/toc.ts'
import type { CompressorNumber } from '../native/addon.ts'
import { compress, COMPRESSOR } from '../native/codecs.ts'
import type { BlobSink } from './blob-sink.ts'

/** Where the chunk information came to lie: what the blob table says of it. */
export interface MetaPlace {
  readonly ciCompressor: number
  readonly ciOffset: number
  readonly ciCompressedSize: number
  readonly ciUncompressedSize: number
}

export interface BlobWriterOptions {
  /** Regions are followed by tar headers. */
  readonly hasTarHeader: boolean
  /** A table of contents ends the blob, and chunk digests stand in it. */
  readonly hasToc: boolean
}

/** Writes the regions of one blob in their order, hashing on the way. Not to be used by two builds. */
export class BlobWriter {
  readonly #sink: BlobSink
  readonly #options: BlobWriterOptions
  readonly #toc: TocEntry[] = []
  /** Of what counts for the blob id: everything but the digest array. */
  #idHash: Hash = createHash('sha256')
  /** Of everything; the same object until the first byte that does not count. */
  #fileHash: Hash = this.#idHash
  #position = 0

  constructor(sink: BlobSink, options: BlobWriterOptions) {
    this.#sink = sink
    this.#options = options
  }

  /** Bytes so far. */
  get position(): number {
    return this.#position
  }

  /** The id of the blob as it is now: lower hex. */
  get blobId(): string {
    return this.#idHash.copy().digest('hex')
  }

  /** sha256 of all bytes so far, lower hex. */
  get fileDigest(): string {
    return this.#fileHash.copy().digest('hex')
  }

  /** Chunk data, or any other bytes that count for the id. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return
    const written = this.#sink.write(bytes)
    // While the file is being written.
    this.#idHash.update(bytes)
    if (this.#fileHash !== this.#idHash) this.#fileHash.update(bytes)
    this.#position += bytes.length
    await written
  }

  /** Ends the data region. `uncompressedSize` is that of the blob table. */
  async endData(uncompressedSize: number): Promise<void> {
    if (!this.#options.hasTarHeader) return
    const size = this.#position
    await this.write(tarHeader(TOC_NAME.image, size))
    // COMPAT: unlike all others this entry's digest is that of the compressed data with its header.
    this.#addToc(TOC_NAME.image, COMPRESSOR.none, this.#idHash.copy().digest(), 0, size, uncompressedSize)
  }

  /** Chunk information, its header, and the digests (32 bytes a chunk), which a blob with a TOC has. */
  async writeMeta(info: ChunkInfoBuilder, { features, compressor, digests }: { features: number; compressor: CompressorNumber; digests: Uint8Array | undefined }): Promise<MetaPlace> {
    const raw = info.encode()
    const packed = compress(raw, { compressor })
    const ciOffset = this.#position
    const place = { ciCompressor: packed === undefined ? COMPRESSOR.none : compressor, ciOffset, ciCompressedSize: packed?.length ?? raw.length, ciUncompressedSize: raw.length }
    const header = info.header({ features, ...place })
    await this.write(packed ?? raw)
    await this.write(header)
    if (this.#options.hasTarHeader) await this.write(tarHeader(TOC_NAME.meta, place.ciCompressedSize + header.length))
    if (digests === undefined) return place
    this.#addToc(TOC_NAME.meta, place.ciCompressor, sha256(raw), ciOffset, place.ciCompressedSize, raw.length)
    this.#addToc(TOC_NAME.metaHeader, COMPRESSOR.none, sha256(header), ciOffset + place.ciCompressedSize, header.length, header.length)
    this.#addToc(TOC_NAME.digest, COMPRESSOR.none, sha256(digests), this.#position, digests.length, digests.length)
    await this.#writeUncounted(digests)
    await this.write(tarHeader(TOC_NAME.digest, digests.length))
    return place
  }

  /** The bootstrap, inlined: compressed when a TOC can say so. */
  async writeBootstrap(bootstrap: Uint8Array): Promise<void> {
    const packed = this.#options.hasToc ? compress(bootstrap, { compressor: COMPRESSOR.zstd }) : undefined
    const offset = this.#position
    const stored = packed ?? bootstrap
    await this.write(stored)
    await this.write(tarHeader(TOC_NAME.boot, stored.length))
    this.#addToc(TOC_NAME.boot, packed === undefined ? COMPRESSOR.none : COMPRESSOR.zstd, sha256(bootstrap), offset, stored.length, bootstrap.length)
  }

  /** The table of contents, last; its size with the tar header and its sha256 as the blob table has them, undefined without a TOC. */
  async writeToc(): Promise<{ tocSize: number; tocDigest: Buffer } | undefined> {
    if (!this.#options.hasToc) return undefined
    const entries = encodeToc(this.#toc)
    const toc = Buffer.concat([entries, tarHeader(TOC_NAME.toc, entries.length)])
    await this.write(toc)
    return { tocSize: toc.length, tocDigest: sha256(toc) }
  }

  async #writeUncounted(bytes: Uint8Array): Promise<void> {
    if (this.#fileHash === this.#idHash) this.#fileHash = this.#idHash.copy()
    this.#fileHash.update(bytes)
    this.#position += bytes.length
    await this.#sink.write(bytes)
  }

  #addToc(name: string, compressor: number, digest: Uint8Array, compressedOffset: number, compressedSize: number, uncompressedSize: number): void {
    const flags = compressor === COMPRESSOR.zstd ? TOC_FLAG.zstd : compressor === COMPRESSOR.lz4 ? TOC_FLAG.lz4 : TOC_FLAG.none
    this.#toc.push({ flags, name, digest, compressedOffset, compressedSize, uncompressedSize })
  }
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

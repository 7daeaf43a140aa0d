// Builds images in memory and reads them back without our serving code: by the bootstrap view, the blob's own chunk array and a plain decompression.

import { createHash } from 'node:crypto'
import { ChunkInfoArray } from '../../src/format/blob/chunk-info-array.ts'
import { blobMetaHeader } from '../../src/format/blob/chunk-info.ts'
import { BootstrapView, type BlobRecord } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { COMPRESSORS } from '../../src/format/rafs-v6/blob-table.ts'
import { type BlobSink, type CreateOptions, type CreateResult, type CreateSource, createImage } from '../../src/build/index.ts'
import type { CompressorNumber } from '../../src/native/addon.ts'
import { decompress } from '../../src/native/codecs.ts'
import { padding, encodeEntry, endBlocks, type WritableEntry } from '../../src/format/tar/writer.ts'
import { bootstrapProvider, type TreeEntry } from './expect.ts'

/** A sink that keeps what it gets. */
export class MemorySink implements BlobSink {
  readonly #parts: Buffer[] = []
  committed: string | undefined
  isAborted = false

  get bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#parts.push(Buffer.from(bytes))
  }

  async commit(blobId: string | undefined): Promise<void> {
    this.committed = blobId
  }

  async abort(): Promise<void> {
    this.isAborted = true
  }
}

export const DEFAULTS = {
  compressor: 'zstd', digester: 'blake3', chunkSize: 0x10_0000, batchSize: 0, inlineMeta: false, blobToc: false, explicitUidGid: true, whiteoutSpec: 'oci',
  prefetch: { policy: 'none', patterns: [] },
} as const satisfies Omit<CreateOptions, 'source' | 'sink' | 'signal'>

/** An image and the bytes of its blob. */
export interface Built extends CreateResult { readonly bytes: Buffer }

export async function build(source: CreateSource, options: Partial<CreateOptions> = {}): Promise<Built> {
  const sink = new MemorySink()
  const result = await createImage({ ...DEFAULTS, sink, source, signal: new AbortController().signal, ...options })
  return { ...result, bytes: sink.bytes }
}

/** A source of one tar in pieces of `pieceSize` bytes. */
export function tarSource(tar: Uint8Array, pieceSize = 70_000): Extract<CreateSource, { type: 'tar' }> {
  return { type: 'tar', stream: pieces(tar, pieceSize) }
}

export async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

export interface TarItem extends Partial<Omit<WritableEntry, 'path' | 'size'>> { readonly path: string; readonly data?: Uint8Array | string }

/** A tar of items; what is left out is a file of root with mode 0644 and time 0, a directory with 0755. */
export function makeTar(items: readonly TarItem[]): Buffer {
  const parts = items.flatMap(({ data = '', type = 'file', ...rest }) => {
    const bytes = Buffer.from(data)
    return [encodeEntry({ mode: type === 'directory' ? 0o755 : 0o644, uid: 0, gid: 0, mtime: 0, type, ...rest, size: bytes.length }), bytes, padding(bytes.length)]
  })
  return Buffer.concat([...parts, endBlocks()])
}

/** The decompressed blob: what the kernel wants as a device. */
export function deviceOf(blob: Uint8Array, record: BlobRecord): Buffer {
  const { entry } = record
  const header = blobMetaHeader.decode(blob, entry.ciOffset + entry.ciCompressedSize)
  const ci = decompress(blob.subarray(entry.ciOffset, entry.ciOffset + entry.ciCompressedSize), { compressor: compressorNumber(entry.ciCompressor), size: entry.ciUncompressedSize })
  const chunks = ChunkInfoArray.decode(ci, record, header)
  const device = Buffer.alloc(entry.uncompressedSize)
  const batches = new Map<number, Uint8Array>()
  const stored = (offset: number, compressedSize: number, size: number) => decompress(blob.subarray(offset, offset + compressedSize),
    { compressor: compressedSize === size ? 0 : compressorNumber(entry.compressor), size })
  for (let i = 0; i < chunks.count; i++) {
    let data: Uint8Array
    if (chunks.isBatch(i)) {
      const { compressedSize, uncompressedSize } = chunks.batch(chunks.batchIndex(i))
      const batch = batches.get(chunks.batchIndex(i)) ?? stored(chunks.compressedOffset(i), compressedSize, uncompressedSize)
      batches.set(chunks.batchIndex(i), batch)
      data = batch.subarray(chunks.batchOffset(i), chunks.batchOffset(i) + chunks.uncompressedSize(i))
    } else {
      data = stored(chunks.compressedOffset(i), chunks.compressedSize(i), chunks.uncompressedSize(i))
    }
    device.set(data, chunks.uncompressedOffset(i))
  }
  return device
}

/** The tree with the digests of its files' contents. `blobs`: bytes of each blob by id. */
export function treeOf(bootstrap: Uint8Array, blobs: ReadonlyMap<string, Uint8Array>): TreeEntry[] {
  const view = BootstrapView.open(bootstrap)
  const devices = view.blobs.map((record) => deviceOf(blobs.get(record.blobId)!, record))
  return [...bootstrapProvider(view).walk() as Iterable<TreeEntry>].map((entry) => (entry.type === 'reg' ? { ...entry, sha256: contentDigest(view, devices, entry.path) } : entry))
}

/** `treeOf` of something just built, whose blobs are its own alone. */
export function builtTree({ bootstrap, blobs, bytes }: Built): TreeEntry[] {
  return treeOf(bootstrap, new Map(blobs.map((id) => [id, bytes])))
}

function contentDigest(view: BootstrapView, devices: readonly Buffer[], path: string): string {
  let inode = view.inode(view.rootNid)
  for (const name of path.split('/').slice(1)) inode = view.inode(view.lookup(inode, name)!.nid)
  const hash = createHash('sha256')
  for (let i = 0; i < view.chunkCount(inode); i++) {
    const { blobIndex, uncompressedOffset } = view.chunkAt(inode, i)
    hash.update(devices[blobIndex]!.subarray(uncompressedOffset, uncompressedOffset + Math.min(view.chunkSize, inode.size - i * view.chunkSize)))
  }
  return hash.digest('hex')
}

// SAFETY: readers refuse numbers outside of the table.
export function compressorNumber(value: number): CompressorNumber {
  return COMPRESSORS[value] === undefined ? 0 : value as CompressorNumber
}

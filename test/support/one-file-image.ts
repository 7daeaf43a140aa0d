// An image of one file, written with the format layer alone: of any bytes, or of a terabyte that is the same chunk again and again.

import { S_IFDIR, S_IFREG } from '../../src/format/erofs/inode.ts'
import { ChunkInfoBuilder } from '../../src/format/blob/chunk-info-builder.ts'
import { BLOB_FEATURE } from '../../src/format/rafs-v6/blob-table.ts'
import { writeBootstrap } from '../../src/format/rafs-v6/bootstrap-writer.ts'
import { ChunkStore } from '../../src/format/rafs-v6/bootstrap-writer-chunks.ts'
import { ImageInode, ImageNode } from '../../src/format/rafs-v6/bootstrap-writer-tree.ts'
import { roundUp } from '../../src/core/units.ts'
import { DIGESTER, digestOf } from '../../src/native/codecs.ts'

export interface OneFileImage {
  readonly boot: Uint8Array
  readonly blobId: string
  readonly blob: Uint8Array
  /** Bytes of the file `file` in the root. */
  readonly size: number
}

/** The file consists of `chunks`, uncompressed, by index as `order` says (default: each once). All but the last are `chunkSize` long. */
export function oneFileImage({ chunks, order = chunks.map((_, i) => i), chunkSize }: { chunks: readonly Buffer[]; order?: readonly number[]; chunkSize: number }): OneFileImage {
  const information = new ChunkInfoBuilder({ isV2: false })
  const store = new ChunkStore()
  let compressedOffset = 0
  let uncompressedOffset = 0
  for (const [i, chunk] of chunks.entries()) {
    information.add({ compressedOffset, compressedSize: chunk.length, uncompressedOffset, uncompressedSize: chunk.length, isCompressed: false })
    const id = store.add()
    store.setDigest(id, digestOf(chunk, DIGESTER.blake3), 0)
    store.setIndex(id, i)
    store.setCompressedSize(id, chunk.length)
    store.setUncompressedSize(id, chunk.length)
    store.setCompressedOffset(id, compressedOffset)
    store.setUncompressedOffset(id, uncompressedOffset)
    compressedOffset += chunk.length
    uncompressedOffset = roundUp(uncompressedOffset + chunk.length, 4096)
  }
  const ci = information.encode()
  const place = { features: BLOB_FEATURE.aligned | BLOB_FEATURE.capTarToc, ciCompressor: 0, ciOffset: compressedOffset, ciCompressedSize: ci.length }
  const blob = Buffer.concat([...chunks, ci, information.header(place)])
  const blobId = digestOf(blob, DIGESTER.sha256).toString('hex')

  const inode = new ImageInode(S_IFREG | 0o644)
  inode.size = (order.length - 1) * chunkSize + chunks[order.at(-1)!]!.length
  inode.chunks = [...order]
  const root = new ImageNode('', new ImageInode(S_IFDIR | 0o755))
  root.children = new Map([['file', new ImageNode('file', inode)]])
  const boot = writeBootstrap({
    root, chunks: store, chunkSize, compressor: 0, digester: 0, explicitUidGid: true,
    blobs: [{
      ...place, blobId, chunkSize, chunkCount: chunks.length, compressor: 0, digester: 0, compressedSize: blob.length, uncompressedSize: uncompressedOffset, tocSize: 0,
      ciUncompressedSize: ci.length, tocDigest: new Uint8Array(32), metaDigest: new Uint8Array(32), metaSize: new Uint8Array(8), cipherIv: new Uint8Array(8), cipher: 0,
    }],
  })
  return { boot, blobId, blob, size: inode.size }
}

/** `bytes` as a file in chunks of 1 MiB. */
export function imageOfBytes(bytes: Buffer): OneFileImage {
  const chunkSize = 2 ** 20
  return oneFileImage({ chunkSize, chunks: Array.from({ length: Math.ceil(bytes.length / chunkSize) }, (_, i) => bytes.subarray(i * chunkSize, (i + 1) * chunkSize)) })
}

/** A terabyte of `chunk` (its contents come with it), and an image of some megabytes. */
export function terabyteImage(): OneFileImage & { readonly chunk: Buffer } {
  const chunkSize = 16 * 2 ** 20
  const chunk = Buffer.alloc(chunkSize)
  for (let at = 0; at < chunkSize; at += 4) chunk.writeUInt32LE(Math.imul(at, 0x9e37_79b1) >>> 0, at)
  return { ...oneFileImage({ chunks: [chunk], order: Array<number>(2 ** 40 / chunkSize).fill(0), chunkSize }), chunk }
}

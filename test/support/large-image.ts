// A synthetic bootstrap of any size, for benches and tests of running time: one blob, one 4 KiB chunk a file, no data behind it.

import { S_IFDIR, S_IFREG } from '../../src/format/erofs/inode.ts'
import { chunkInfoV1 } from '../../src/format/blob/chunk-info.ts'
import { BLOB_FEATURE } from '../../src/format/rafs-v6/blob-table.ts'
import { writeBootstrap, type BlobDescription } from '../../src/format/rafs-v6/bootstrap-writer.ts'
import { ChunkStore } from '../../src/format/rafs-v6/bootstrap-writer-chunks.ts'
import { ImageInode, ImageNode } from '../../src/format/rafs-v6/bootstrap-writer-tree.ts'

const BLOCK = 4096
const CHUNK_SIZE = 2 ** 20

/** Directories `directory-0` and so on in the root, with as many files (`file-with-a-name-0` ...) as `files` says of each. */
export function largeBootstrap(files: readonly number[]): Uint8Array {
  const chunks = new ChunkStore()
  const root = new ImageNode('', new ImageInode(S_IFDIR | 0o755))
  root.children = new Map()
  for (const [d, count] of files.entries()) {
    const directory = new ImageNode(`directory-${d}`, new ImageInode(S_IFDIR | 0o755))
    directory.children = new Map()
    for (let f = 0; f < count; f++) {
      const inode = new ImageInode(S_IFREG | 0o644)
      inode.size = BLOCK
      inode.mtime = 1_600_000_000 + f
      inode.chunks = addChunk(chunks)
      directory.children.set(`file-with-a-name-${f}`, new ImageNode(`file-with-a-name-${f}`, inode))
    }
    root.children.set(directory.name, directory)
  }
  return writeBootstrap({ root, chunks, chunkSize: CHUNK_SIZE, compressor: 0, digester: 0, explicitUidGid: true, blobs: chunks.count === 0 ? [] : [blobOf(chunks)] })
}

/** A chain of `depth` directories. */
export function deepBootstrap(depth: number): Uint8Array {
  const root = new ImageNode('', new ImageInode(S_IFDIR | 0o755))
  let node = root
  for (let i = 0; i < depth; i++) {
    const child = new ImageNode('d', new ImageInode(S_IFDIR | 0o755))
    node.children = new Map([[child.name, child]])
    node = child
  }
  return writeBootstrap({ root, chunks: new ChunkStore(), chunkSize: CHUNK_SIZE, compressor: 0, digester: 0, explicitUidGid: true, blobs: [] })
}

function blobOf({ count }: ChunkStore): BlobDescription {
  const ciSize = count * chunkInfoV1.size
  const dataSize = count * BLOCK
  return {
    blobId: 'a'.repeat(64), chunkSize: CHUNK_SIZE, chunkCount: count, compressor: 0, digester: 0, features: BLOB_FEATURE.aligned | BLOB_FEATURE.capTarToc,
    compressedSize: dataSize + ciSize + BLOCK, uncompressedSize: dataSize, tocSize: 0, ciCompressor: 0, ciOffset: dataSize, ciCompressedSize: ciSize, ciUncompressedSize: ciSize,
    tocDigest: new Uint8Array(32), metaDigest: new Uint8Array(32), metaSize: new Uint8Array(8), cipherIv: new Uint8Array(8), cipher: 0,
  }
}

function addChunk(chunks: ChunkStore): number {
  const id = chunks.add()
  const digest = Buffer.alloc(32)
  digest.writeUInt32BE(Math.imul(id, 0x9e37_79b1) >>> 0) // spread, as digests are
  digest.writeUInt32BE(id, 4)
  chunks.setDigest(id, digest, 0)
  chunks.setIndex(id, id)
  chunks.setCompressedSize(id, BLOCK)
  chunks.setUncompressedSize(id, BLOCK)
  chunks.setCompressedOffset(id, id * BLOCK)
  chunks.setUncompressedOffset(id, id * BLOCK)
  return id
}

// A chunk dictionary: the chunks of another image, which a build refers to instead of storing them again.
// SPEC: nydus builder/src/core/chunk_dict.rs; spec-rafs.md D "Dedup".

import { CodedError } from '../core/errors.ts'
import type { DigesterName } from '../format/rafs-v6/blob-table.ts'
import type { BlobDescription } from '../format/rafs-v6/bootstrap-writer.ts'
import { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import { ChunkIndex } from './chunk-index.ts'
import { openBootstrap, referredBlob } from './load-tree.ts'

/** The chunks of another image, which a build refers to instead of storing them again. */
export class ChunkDictionary {
  readonly chunks: ChunkStore
  readonly index: ChunkIndex
  /** In the dictionary's own order, to which `chunks` refers. */
  readonly blobs: readonly BlobDescription[]

  private constructor(chunks: ChunkStore, index: ChunkIndex, blobs: readonly BlobDescription[]) {
    this.chunks = chunks
    this.index = index
    this.blobs = blobs
  }

  /**
   * Reads the chunk table of a bootstrap. With another digester it has nothing to offer (as upstream). BUILD_INCONSISTENT for another chunk
   * size or other owners (explicit or not), FORMAT_* for a damaged bootstrap.
   */
  static load(bytes: Uint8Array, { name, ...want }: { readonly name: string; readonly chunkSize: number; readonly digester: DigesterName; readonly explicitUidGid: boolean }): ChunkDictionary {
    const view = openBootstrap(bytes, name)
    if (view.chunkSize !== want.chunkSize) throw new CodedError('BUILD_INCONSISTENT', `Inconsistent configuration of chunk_size: ${want.chunkSize} vs ${view.chunkSize}`)
    if (view.explicitIds !== want.explicitUidGid) throw new CodedError('BUILD_INCONSISTENT', `Using inconsistent explicit_uidgid setting ${want.explicitUidGid}, target explicit_uidgid setting ${view.explicitIds}`)
    const chunks = new ChunkStore()
    const index = new ChunkIndex(chunks)
    if (view.digester === want.digester) {
      const table = view.chunkTable
      for (let row = 0; row < table.count; row++) {
        const blob = view.blobs[table.blobIndex(row)]
        if (blob === undefined) throw new CodedError('FORMAT_INVALID', `chunk table row ${row} of ${name} names a blob that does not exist`, { row })
        if (blob.digester === want.digester) index.add(chunks.addRecord(table.record(row), 0))
      }
    }
    return new ChunkDictionary(chunks, index, view.blobs.map(referredBlob))
  }
}

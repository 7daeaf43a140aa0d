// Which chunks the chunk table lists, in which order, and with which file offsets.
// SPEC: nydus builder/src/core/v6.rs `chunk_cache` (a BTreeMap by digest and blob); spec-rafs.md A.6.

import { type ChunkStore, compareDigests } from './bootstrap-writer-chunks.ts'
import type { WalkOrder } from './bootstrap-writer-tree.ts'

export interface ChunkTableOrder {
  /** Ids of the chunks in use, by digest, then blob, then index. */
  readonly ids: Uint32Array
  /** By chunk id: where the chunk lies in the last file, in walk order, that uses it. */
  readonly fileOffsets: Float64Array
}

/** Chunks of `order`'s files; linear but for the sort. */
export function chunkTableOrder(order: WalkOrder, chunks: ChunkStore, chunkSize: number): ChunkTableOrder {
  const fileOffsets = new Float64Array(chunks.count).fill(-1)
  for (const { inode } of order.nodes) {
    if (inode.chunks === undefined) continue
    // COMPAT: what comes from a bootstrap keeps the table's value, which is that of its own last user.
    if (typeof inode.chunks === 'number') fileOffsets[inode.chunks] = inode.loaded ? chunks.fileOffset(inode.chunks) : 0
    else inode.chunks.forEach((id, i) => { fileOffsets[id] = inode.loaded ? chunks.fileOffset(id) : i * chunkSize })
  }
  let used = 0
  for (const offset of fileOffsets) if (offset >= 0) used++
  const ids = new Uint32Array(used)
  let next = 0
  for (let id = 0; id < fileOffsets.length; id++) if (fileOffsets[id]! >= 0) ids[next++] = id
  return { ids: sortByDigest(ids, chunks), fileOffsets }
}

/**
 * Sorting 400,000 ids with a comparison function takes longer than everything else in the writer. So: the first bits of the digest and the
 * position in one number, the engine's own sort of numbers, then only the runs whose bits are equal are compared in full.
 */
function sortByDigest(ids: Uint32Array, chunks: ChunkStore): Uint32Array {
  const positions = 2 ** Math.ceil(Math.log2(Math.max(ids.length, 2)))
  const prefixes = Math.min(2 ** 53 / positions, 2 ** 32)
  const prefixOf = (id: number) => Math.floor(chunks.digestWord(id, 0) / (2 ** 32 / prefixes))
  const keys = new Float64Array(ids.length)
  for (let i = 0; i < ids.length; i++) keys[i] = prefixOf(ids[i]!) * positions + i
  keys.sort()
  const sorted = Uint32Array.from(keys, (key) => ids[key % positions]!)
  const compare = (a: number, b: number) => compareDigests(chunks, a, b) || chunks.blobIndex(a) - chunks.blobIndex(b) || chunks.index(a) - chunks.index(b)
  for (let start = 0; start < sorted.length;) {
    let end = start + 1
    while (end < sorted.length && Math.floor(keys[end]! / positions) === Math.floor(keys[start]! / positions)) end++
    if (end - start > 1) sorted.subarray(start, end).sort(compare)
    start = end
  }
  return sorted
}

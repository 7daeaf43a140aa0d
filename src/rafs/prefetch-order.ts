// Which chunks a list of files names, in its order.

import { isCoded } from '../core/errors.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from '../format/erofs/inode.ts'
import type { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import type { ChunkPlace } from '../storage/index.ts'
import { piecesOf } from './locate.ts'
import type { PrefetchItem } from './prefetch-list.ts'
import { resolvePath } from './resolve.ts'

export interface ListedChunk { readonly blobIndex: number; readonly place: ChunkPlace }

/** The image's own table, as inode numbers; the root alone means everything. SPEC: spec-rafs.md A.10. */
export function tableItems(view: BootstrapView): readonly number[] | 'everything' {
  const nids = view.prefetchNids()
  return nids.length === 1 && nids[0] === view.rootNid ? 'everything' : nids
}

/** Chunks of files, of directories with all below, and of parts of files. What does not exist, or is damaged, is skipped: whoever reads it is told. */
export function* listedChunks(view: BootstrapView, items: readonly (PrefetchItem | number)[]): Generator<ListedChunk> {
  const seen = new Set<number>()
  for (const item of items) {
    const nid = typeof item === 'number' ? item : nidOf(view, item.path)
    if (nid === undefined) continue
    const range = typeof item === 'number' ? undefined : item.range
    if (range === undefined) yield* below(view, nid, seen)
    else yield* chunksOf(view, nid, range)
  }
}

function* below(view: BootstrapView, top: number, seen: Set<number>): Generator<ListedChunk> {
  const todo = [top]
  while (todo.length > 0) {
    const nid = todo.pop()!
    if (seen.has(nid)) continue // a damaged image may have a directory inside itself
    seen.add(nid)
    try {
      const inode = view.inode(nid)
      if ((inode.mode & S_IFMT) === S_IFDIR) todo.push(...[...view.entries(inode)].filter(({ name }) => name !== '.' && name !== '..').map((entry) => entry.nid).reverse())
      else yield* chunksOf(view, nid, { offset: 0, length: inode.size })
    } catch (error) {
      if (!isCoded(error)) throw error
    }
  }
}

function* chunksOf(view: BootstrapView, nid: number, { offset, length }: { readonly offset: number; readonly length: number }): Generator<ListedChunk> {
  try {
    const inode = view.inode(nid)
    if ((inode.mode & S_IFMT) !== S_IFREG) return
    for (const { blobIndex, index, chunkOffset, chunkSize: size } of piecesOf(view, inode, offset, length)) yield { blobIndex, place: { index, offset: chunkOffset, size } }
  } catch (error) {
    if (!isCoded(error)) throw error
  }
}

function nidOf(view: BootstrapView, file: string): number | undefined {
  try {
    return resolvePath(view, file).nid
  } catch (error) {
    if (isCoded(error)) return undefined
    throw error
  }
}

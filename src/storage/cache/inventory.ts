// What lies in a cache directory, blob by blob, and the taking away of what nobody uses.

import { readdirSync, statSync, unlinkSync, type Stats } from 'node:fs'
import path from 'node:path'
import { isSystemError } from '../../core/errors.ts'
import { blobIdOf, cacheNames } from './layout.ts'
import { whileUnused } from './lease.ts'

export interface CachedBlob {
  readonly blobId: string
  /** That all its files take on the disk. */
  readonly bytes: number
  /** Of the decompressed blob. */
  readonly size: number
  readonly lastUsedMs: number
  /** Inode number of the cache file. */
  readonly inode: number
}

export interface RemoveOptions {
  /** Leaves the chunk information: a snapshotter may have put it there for a later mount. */
  readonly keepMeta: boolean
}

/** Blobs that have a cache file in `directory`, the longest unused first, and the bytes of all files of the cache. Nothing when there is no such directory. */
export function inventory(directory: string): { readonly blobs: CachedBlob[]; readonly bytes: number } {
  const bytesOf = new Map<string, number>()
  const dataOf = new Map<string, Stats>()
  for (const name of namesIn(directory)) {
    const blobId = blobIdOf(name)
    const status = blobId === undefined ? undefined : statSync(path.join(directory, name), { throwIfNoEntry: false })
    if (blobId === undefined || status === undefined) continue
    bytesOf.set(blobId, (bytesOf.get(blobId) ?? 0) + status.blocks * 512)
    if (name.endsWith('.blob.data')) dataOf.set(blobId, status)
  }
  const blobs = [...dataOf].map(([blobId, { size, atimeMs, mtimeMs, ino }]) => ({ blobId, bytes: bytesOf.get(blobId)!, size, lastUsedMs: Math.max(atimeMs, mtimeMs), inode: ino }))
  return { blobs: blobs.sort((a, b) => a.lastUsedMs - b.lastUsedMs), bytes: [...bytesOf.values()].reduce((sum, bytes) => sum + bytes, 0) }
}

/** Takes the files of a blob away. False when somebody uses them. */
export function removeBlob(directory: string, blobId: string, { keepMeta }: RemoveOptions): boolean {
  const names = cacheNames(directory, blobId)
  return whileUnused(names.data, () => {
    // the map first: bits without their data would be believed by upstream
    unlinkIfThere(names.chunkMap)
    unlinkSync(names.data)
    if (!keepMeta) for (const file of [names.meta, names.digests, names.toc]) unlinkIfThere(file)
  })
}

/** Takes blobs away that nobody uses, the longest unused first, until all files together have at most `limit` bytes. Returns what was taken and what is left. */
export function makeRoom(directory: string, limit: number, options: RemoveOptions): { readonly removed: CachedBlob[]; readonly bytes: number } {
  const { blobs, bytes } = inventory(directory)
  let left = bytes
  const removed: CachedBlob[] = []
  for (const blob of blobs) {
    if (left <= limit) break
    if (!removeBlob(directory, blob.blobId, options)) continue
    removed.push(blob)
    left -= blob.bytes
  }
  return { removed, bytes: left }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return []
    throw error
  }
}

function unlinkIfThere(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (!isSystemError(error, 'ENOENT')) throw error
  }
}

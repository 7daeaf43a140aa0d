// `nydusctl cache ls|gc`.

import { statSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { cacheNames, completenessOf, inventory, isLeased, makeRoom, ownerOf, usersByInode, type CacheUser } from '../../storage/index.ts'
import { parseSize } from '../command-line.ts'
import { sizeText, table } from './table.ts'

export interface CacheOptions { readonly dir: string; readonly json?: true }

/** One blob as `ls --json` prints it. */
interface Listed {
  readonly blob_id: string
  readonly bytes: number
  readonly size: number
  readonly chunks: number
  readonly chunks_stored: number
  readonly complete: boolean
  readonly last_used: string
  readonly in_use: boolean
  readonly users: readonly CacheUser[]
  readonly owner: { readonly id: string; readonly bootstrap: string | null } | null
}

/** Prints every blob of the directory, most recently used first. */
export function listCache({ dir, json }: CacheOptions): void {
  const { blobs, bytes } = inventoryOf(dir)
  const listed = blobs.reverse().map((blob) => describe(dir, blob))
  if (json) {
    print(JSON.stringify({ directory: path.resolve(dir), bytes, blobs: listed }, null, 2))
    return
  }
  print(table(['BLOB', 'ON DISK', 'STORED', 'LAST USED', 'IN USE BY', 'IMAGE'], listed.map((blob) => [
    blob.blob_id.slice(0, 16), sizeText(blob.bytes), shareText(blob), blob.last_used.replace('T', ' ').slice(0, 19),
    blob.in_use ? blob.users.map(({ pid, command }) => `${command ?? '(gone)'} ${pid}`).join(', ') || 'somebody' : '-', blob.owner?.bootstrap ?? blob.owner?.id ?? '-',
  ]), [1, 2]))
  print(`${listed.length} blobs, ${sizeText(bytes)}\n`)
}

/** Removes blobs that nobody leases, least recently used first, until `keep` (a size) holds. With `dryRun` says only which. @throws CONFIG_INVALID for a size that is none */
export function collectGarbage({ dir, json, keep, dryRun }: CacheOptions & { readonly keep: string; readonly dryRun?: true }): void {
  const limit = parseSize(keep, 'keep')
  const { blobs, bytes } = inventoryOf(dir)
  const removed = dryRun ? candidates(dir, blobs, bytes - limit) : makeRoom(dir, limit, { keepMeta: false }).removed
  const freed = removed.reduce((sum, blob) => sum + blob.bytes, 0)
  if (json) {
    print(JSON.stringify({ directory: path.resolve(dir), dry_run: dryRun ?? false, freed_bytes: freed, used_bytes: bytes - freed, removed: removed.map(({ blobId, bytes: size }) => ({ blob_id: blobId, bytes: size })) }, null, 2))
    return
  }
  for (const { blobId, bytes: size } of removed) print(`${blobId} ${sizeText(size)}\n`)
  print(`${removed.length} blobs, ${sizeText(freed)} ${dryRun ? 'would be removed' : 'removed'}; ${sizeText(bytes - freed)} stay\n`)
}

/** As `inventory`; RAFS_NOT_FOUND would be of an image, so a missing directory is CONFIG_INVALID. */
export function inventoryOf(dir: string): ReturnType<typeof inventory> {
  const found = inventory(dir)
  if (found.blobs.length === 0 && found.bytes === 0 && !isDirectory(dir)) throw new CodedError('CONFIG_INVALID', `${dir} is no directory`, { dir })
  return found
}

function candidates(dir: string, blobs: ReturnType<typeof inventory>['blobs'], surplus: number) {
  let left = surplus
  return blobs.filter(({ blobId, bytes }) => {
    if (left <= 0 || isLeased(cacheNames(dir, blobId).data)) return false
    left -= bytes
    return true
  })
}

function describe(dir: string, { blobId, bytes, size, lastUsedMs, inode }: ReturnType<typeof inventory>['blobs'][number]): Listed {
  const { data } = cacheNames(dir, blobId)
  const { chunks, durable, isComplete } = completenessOf(dir, blobId)
  const inUse = isLeased(data)
  const owner = ownerOf(data)
  return {
    blob_id: blobId, bytes, size, chunks, chunks_stored: durable, complete: isComplete, last_used: new Date(lastUsedMs).toISOString(), in_use: inUse,
    users: inUse ? usersByInode().get(inode) ?? [] : [], owner: owner === undefined ? null : { id: owner.id, bootstrap: owner.bootstrap ?? null },
  }
}

function shareText({ chunks, chunks_stored: stored, complete }: Listed): string {
  return complete ? 'all' : chunks === 0 ? '-' : `${Math.floor(100 * stored / chunks)} %`
}

function isDirectory(dir: string): boolean {
  return statSync(dir, { throwIfNoEntry: false })?.isDirectory() ?? false
}

function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
}

// `nydusctl cache verify`: every chunk that is said to be there is compared with its digest, without a backend.

import path from 'node:path'
import { isCoded } from '../../core/errors.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { cacheNames, ownerOf, verifyCachedBlob } from '../../storage/index.ts'
import { EXIT } from '../command-line.ts'
import { type CacheOptions, inventoryOf } from './cache.ts'

interface Verdict {
  readonly blob_id: string
  readonly status: 'intact' | 'damaged' | 'unknown'
  readonly chunks_intact: number
  readonly chunks_damaged: readonly number[]
  /** Chunks that no digest is known of. */
  readonly chunks_unknown: number
  readonly reason?: string
}

/** Prints what was found; 1 when something is damaged. */
export async function verifyCache({ dir, json, bootstrap = [], repair = false }: CacheOptions & { readonly bootstrap?: readonly string[]; readonly repair?: boolean }): Promise<number> {
  const { signal } = new AbortController()
  const { blobs } = inventoryOf(dir)
  const given = await Promise.all(bootstrap.map(open))
  const verdicts: Verdict[] = []
  for (const { blobId } of blobs) {
    const views = [...given]
    const owner = ownerOf(cacheNames(dir, blobId).data)
    if (owner?.isEncrypted) {
      verdicts.push(unknown(blobId, 'it is encrypted: a mount with its key verifies it'))
      continue
    }
    const noted = owner?.bootstrap
    if (noted !== undefined) views.push(...await open(noted).then((view) => [view], onlyCoded))
    const view = views.find((candidate) => indexOf(candidate, blobId) >= 0)
    verdicts.push(view === undefined ? unknown(blobId, 'no bootstrap knows the digests of this blob: -B') : await verdictOf(view, blobId, { dir, repair, signal }))
  }
  if (json) process.stdout.write(`${JSON.stringify({ directory: path.resolve(dir), repaired: repair, blobs: verdicts }, null, 2)}\n`)
  else for (const verdict of verdicts) process.stdout.write(`${textOf(verdict)}\n`)
  return verdicts.some(({ status }) => status === 'damaged') ? EXIT.failed : EXIT.ok
}

async function verdictOf(view: BootstrapView, blobId: string, { dir, repair, signal }: { readonly dir: string; readonly repair: boolean; readonly signal: AbortSignal }): Promise<Verdict> {
  try {
    const { intact, damaged, unknown: uncovered } = await verifyCachedBlob({ view, blobIndex: indexOf(view, blobId), directory: dir, repair }, { signal })
    return { blob_id: blobId, status: damaged.length > 0 ? 'damaged' : uncovered > 0 ? 'unknown' : 'intact', chunks_intact: intact, chunks_damaged: damaged, chunks_unknown: uncovered }
  } catch (error) {
    if (!isCoded(error)) throw error
    return unknown(blobId, error.message)
  }
}

async function open(file: string): Promise<BootstrapView> {
  return (await openBootstrap(file, { signal: new AbortController().signal })).view // mapped until the process ends
}

/** A bootstrap that is gone or damaged says nothing. */
function onlyCoded(error: unknown): BootstrapView[] {
  if (!isCoded(error)) throw error
  return []
}

function indexOf(view: BootstrapView, blobId: string): number {
  return view.blobs.findIndex((blob) => blob.blobId === blobId)
}

function unknown(blobId: string, reason: string): Verdict {
  return { blob_id: blobId, status: 'unknown', chunks_intact: 0, chunks_damaged: [], chunks_unknown: 0, reason }
}

function textOf({ blob_id: blobId, status, chunks_intact: intact, chunks_damaged: damaged, chunks_unknown: uncovered, reason }: Verdict): string {
  return `${blobId} ${status}: ${reason ?? `${intact} chunks intact, ${damaged.length} damaged${uncovered > 0 ? `, ${uncovered} without a digest` : ''}`}`
}

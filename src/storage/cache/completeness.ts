// How much of a cached blob is there, by its files alone.

import { readFileSync } from 'node:fs'
import { isCoded, isSystemError } from '../../core/errors.ts'
import { blobMetaHeader } from '../../format/blob/chunk-info.ts'
import { bitsOf, countBits } from './chunk-map.ts'
import { cacheNames } from './layout.ts'

/** Chunks that the map says are durable, and all of the blob; of the latter only a bound (the next multiple of 8) while its chunk information is not there. */
export interface Completeness { readonly durable: number; readonly chunks: number; readonly isComplete: boolean }

/** What the files of `blobId` in a cache directory say; a missing or damaged map counts as nothing durable. */
export function completenessOf(directory: string, blobId: string): Completeness {
  const names = cacheNames(directory, blobId)
  const map = readWhole(names.chunkMap)
  const known = chunksIn(readWhole(names.meta))
  const bits = map && bitsOf(map)
  if (bits === undefined) return { durable: 0, chunks: known ?? 0, isComplete: false }
  const chunks = known ?? bits.length * 8
  const durable = Math.min(chunks, countBits(bits))
  return { durable, chunks, isComplete: known !== undefined && durable === chunks }
}

function chunksIn(meta: Uint8Array | undefined): number | undefined {
  if (meta === undefined || meta.length < blobMetaHeader.size) return undefined
  try {
    return blobMetaHeader.decode(meta.subarray(meta.length - blobMetaHeader.size)).ciEntries
  } catch (error) {
    if (isCoded(error)) return undefined // damaged: the next mount replaces it
    throw error
  }
}

function readWhole(file: string): Uint8Array | undefined {
  try {
    return readFileSync(file)
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return undefined
    throw error
  }
}

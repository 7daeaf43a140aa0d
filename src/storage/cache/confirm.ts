// Chunks that a cache file has from an earlier time, looked at again before anybody uses them: neighbours in one read and one call to hash
// them. After a restart an image of small files would else be verified file by file, at ten times the cost.

import { MiB, roundUp } from '../../core/units.ts'
import { CHUNK_ALIGNMENT } from '../../format/blob/chunk-info-array.ts'
import type { Evidence } from '../fetch/evidence.ts'
import type { BlobCache, ChunkPlace } from './blob-cache.ts'

/** LIMIT: bytes that are looked at together with a chunk that has to be. */
export const CONFIRM_BYTES = MiB
/** LIMIT: bytes of one read; a larger chunk is read alone. */
const MAX_RUN = 4 * MiB

/** What was found: bytes of the intact chunks (views of larger buffers) by index, and the indices of those that are gone or wrong. */
export interface Confirmed { readonly intact: Map<number, Uint8Array>; readonly wrong: number[] }

/** Reads `places` (ascending) of the cache file and compares them with `evidence` (undefined: anything is right). Changes nothing. */
export async function confirm(cache: BlobCache, places: readonly ChunkPlace[], evidence: Evidence | undefined): Promise<Confirmed> {
  const found = await Promise.all(runsOf(places).map((run) => confirmRun(cache, run, evidence)))
  return { intact: new Map(found.flatMap(({ intact }) => [...intact])), wrong: found.flatMap(({ wrong }) => wrong) }
}

async function confirmRun(cache: BlobCache, run: readonly ChunkPlace[], evidence: Evidence | undefined): Promise<Confirmed> {
  const start = run[0]!.offset
  const bytes = Buffer.allocUnsafeSlow(run.at(-1)!.offset + run.at(-1)!.size - start)
  if (!await cache.read(bytes, start)) {
    // a file that was cut short still has what lies before its end
    if (run.length === 1) return { intact: new Map(), wrong: [run[0]!.index] }
    const halves = [run.slice(0, run.length >>> 1), run.slice(run.length >>> 1)]
    const found = await Promise.all(halves.map((half) => confirmRun(cache, half, evidence)))
    return { intact: new Map(found.flatMap(({ intact }) => [...intact])), wrong: found.flatMap(({ wrong }) => wrong) }
  }
  const wrong = await evidence?.refute(bytes, run.map(({ index, offset, size }) => ({ index, offset: offset - start, size }))) ?? new Set<number>()
  const intact = run.filter(({ index }) => !wrong.has(index)).map(({ index, offset, size }) => [index, bytes.subarray(offset - start, offset - start + size)] as const)
  return { intact: new Map(intact), wrong: [...wrong] }
}

/** `places` in lists of neighbours: each begins where the one before ends, chunks being padded to blocks. */
function runsOf(places: readonly ChunkPlace[]): ChunkPlace[][] {
  const runs: ChunkPlace[][] = []
  for (const place of places) {
    const run = runs.at(-1)
    const last = run?.at(-1)
    if (run && last && place.offset === roundUp(last.offset + last.size, CHUNK_ALIGNMENT) && place.offset + place.size - run[0]!.offset <= MAX_RUN) run.push(place)
    else runs.push([place])
  }
  return runs
}

// Prefetch: chunks that will be wanted soon, fetched while nobody waits for anything else. What goes first: a list of files given by the user, else
// the image's own table; then, if asked, everything.
// SPEC: spec-surface.md B.3 prefetch; spec-rafs.md A.10.

import { setTimeout as delay } from 'node:timers/promises'
import { isCoded } from '../core/errors.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from '../format/erofs/inode.ts'
import type { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import type { ChunkPlace, PrefetchConfig } from '../storage/index.ts'
import type { RafsImage } from './image.ts'
import { piecesOf } from './locate.ts'
import { resolvePath } from './resolve.ts'

export interface PrefetchOptions {
  readonly config: Pick<PrefetchConfig, 'threads' | 'batchSize' | 'bandwidthLimit' | 'prefetchAll'>
  /** Byte strings: files, and directories with all below, instead of the image's table. Those that do not exist are skipped. */
  readonly files?: readonly string[] | undefined
  readonly signal: AbortSignal
}

/** Neighbouring chunks of one blob. */
interface Batch { readonly blobIndex: number; readonly places: readonly ChunkPlace[]; readonly bytes: number }

/** LIMIT: after so many failures in a row the backend is down, and readers need it more. */
const MAX_FAILURES = 8

/** Resolves when everything was tried: a prefetch that fails costs nothing but speed. Rejects with `signal.reason` on abort. */
export async function prefetchImage(image: RafsImage, { config, files, signal }: PrefetchOptions): Promise<void> {
  const { cacheMetrics } = image
  const batches = batchesOf(image, { config, files, signal })
  const pace = new Pace(config.bandwidthLimit)
  let failures = 0
  const worker = async (): Promise<void> => {
    for await (const batch of batches) {
      if (failures >= MAX_FAILURES) return
      await pace.wait(batch.bytes, signal)
      const begin = performance.now()
      try {
        await image.prefetch(batch.blobIndex, batch.places, { signal })
        failures = 0
      } catch (error) {
        signal.throwIfAborted()
        if (!isCoded(error)) throw error
        failures++ // the backend said so itself, as an event
      }
      cacheMetrics.prefetchRequestsCount++
      cacheMetrics.prefetchDataAmount += batch.bytes
      cacheMetrics.prefetchUnmergedChunks += batch.places.length
      cacheMetrics.prefetchCumulativeMs += performance.now() - begin
    }
  }
  cacheMetrics.prefetchBeginMs ||= Date.now()
  cacheMetrics.prefetchWorkers += config.threads
  try {
    await Promise.all(Array.from({ length: config.threads }, worker))
  } finally {
    cacheMetrics.prefetchWorkers -= config.threads
    cacheMetrics.prefetchEndMs = Date.now()
  }
}

// One generator for all workers: each takes the next batch. `return` of one worker must not end it for the others, hence the wrapper.
function batchesOf(image: RafsImage, options: PrefetchOptions): AsyncIterable<Batch> {
  const source = chosen(image, options)
  return { [Symbol.asyncIterator]: () => ({ next: () => source.next() }) }
}

async function* chosen(image: RafsImage, { config, files, signal }: PrefetchOptions): AsyncGenerator<Batch> {
  const { view } = image
  const nids = files === undefined ? view.prefetchNids() : files.flatMap((file) => nidOf(view, file))
  const everything = config.prefetchAll || (nids.length === 1 && nids[0] === view.rootNid)
  if (nids[0] !== view.rootNid) yield* grouped(image, placesOfFiles(view, nids), config.batchSize)
  if (!everything) return
  for (const [blobIndex, blob] of image.blobs.entries()) {
    const places = await blob.allPlaces({ signal }).catch((error: unknown) => { if (isCoded(error)) return []; throw error })
    yield* grouped(image, places.map((place) => ({ blobIndex, place })), config.batchSize)
  }
}

/** Batches of what is not ready yet, in the order given. */
function* grouped(image: RafsImage, chunks: Iterable<{ blobIndex: number; place: ChunkPlace }>, batchSize: number): Generator<Batch> {
  let open: { blobIndex: number; places: ChunkPlace[]; bytes: number } | undefined
  for (const { blobIndex, place } of chunks) {
    const blob = image.blobs[blobIndex]!
    // what is durable needs no backend: its first reader verifies it
    if (blob.isReady(place) || blob.cache?.isDurable(place.index)) continue
    if (open !== undefined && (open.blobIndex !== blobIndex || open.bytes + place.size > batchSize)) {
      yield open
      open = undefined
    }
    open ??= { blobIndex, places: [], bytes: 0 }
    open.places.push(place)
    open.bytes += place.size
  }
  if (open !== undefined) yield open
}

function* placesOfFiles(view: BootstrapView, nids: readonly number[]): Generator<{ blobIndex: number; place: ChunkPlace }> {
  const seen = new Set<number>() // a damaged image may have a directory inside itself
  const todo = [...nids].reverse()
  while (todo.length > 0) {
    const nid = todo.pop()!
    if (seen.has(nid)) continue
    seen.add(nid)
    try {
      const inode = view.inode(nid)
      const type = inode.mode & S_IFMT
      if (type === S_IFDIR) todo.push(...[...view.entries(inode)].filter(({ name }) => name !== '.' && name !== '..').map((entry) => entry.nid).reverse())
      if (type !== S_IFREG) continue
      for (const { blobIndex, index, chunkOffset: offset, chunkSize: size } of piecesOf(view, inode, 0, inode.size)) yield { blobIndex, place: { index, offset, size } }
    } catch (error) {
      if (!isCoded(error)) throw error // damaged: whoever reads the file is told
    }
  }
}

function nidOf(view: BootstrapView, file: string): number[] {
  try {
    return [resolvePath(view, file).nid]
  } catch (error) {
    if (isCoded(error)) return []
    throw error
  }
}

/** Spreads requests of all workers so that they take no more than a number of bytes a second. */
class Pace {
  readonly #bytesPerSecond: number
  #freeAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond
  }

  async wait(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === 0) return
    const now = performance.now()
    const start = Math.max(now, this.#freeAt)
    this.#freeAt = start + bytes / this.#bytesPerSecond * 1000
    if (start > now) await delay(start - now, undefined, { signal })
  }
}

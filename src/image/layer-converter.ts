// One layer from a source to a target: kept from an earlier run, taken from a build cache, or packed now; then pushed.

import { createHash } from 'node:crypto'
import { publish } from '../core/diagnostics.ts'
import type { Descriptor } from '../format/oci/descriptor.ts'
import type { Digest } from '../format/oci/digest.ts'
import type { ImageSource, ImageTarget } from '../registry/index.ts'
import type { BuildCache } from './build-cache.ts'
import type { LayerBuilder, PackSettings } from './builder.ts'
import { Limiter, type TaskGroup } from './limiter.ts'
import { openLayer } from './open-layer.ts'
import { type PackedLayer, readPackedLayer } from './packed-layer.ts'
import { type LayerFile, layerPieces, type WorkDirectory } from './work-directory.ts'

/** Where a packed layer came from. */
export type LayerOrigin = 'packed' | 'kept' | 'cached'

export interface ConvertedLayer {
  readonly source: Descriptor
  readonly blob: Pick<Descriptor, 'digest' | 'size'>
  /** Reads what the merge needs. A bootstrap is large: not before all layers are packed. */
  readonly open: () => Promise<PackedLayer>
  readonly origin: LayerOrigin
  /** Settles when the target has the blob. */
  readonly pushed: Promise<void>
}

/** Layers packed at the same time, threads for each, layers pushed at the same time. */
export interface Parallelism { readonly packs: number; readonly threads: number; readonly pushes: number }

export interface LayerConverterParts {
  readonly source: ImageSource
  readonly target: ImageTarget
  readonly builder: LayerBuilder
  readonly settings: PackSettings
  readonly work: WorkDirectory
  /** For the builder's temporary files. */
  readonly scratch: string
  readonly cache: BuildCache | undefined
  readonly parallel: Parallelism
}

/** Changes when packed layers change for reasons that neither settings nor the builder's version show. */
const KEPT_FORMAT = 1

/** Converts each layer once, however many images name it. Owns the files of the layers. */
export class LayerConverter implements AsyncDisposable {
  readonly #parts: LayerConverterParts
  readonly #packs: Limiter
  readonly #pushes: Limiter
  readonly #layers = new Map<string, Promise<ConvertedLayer>>()
  /** By key, not by digest: two source layers may pack to the same bytes. */
  readonly #files = new Map<string, LayerFile>()

  constructor(parts: LayerConverterParts) {
    this.#parts = parts
    this.#packs = new Limiter(parts.parallel.packs)
    this.#pushes = new Limiter(parts.parallel.pushes)
  }

  /** Threads for each layer. */
  get threads(): number {
    return this.#parts.parallel.threads
  }

  /** The layer, packed; its push goes on in the group, and with it the use of this object. Codes of `openLayer`, of the builder and of the target. */
  convert(layer: Descriptor, diffId: Digest, group: TaskGroup): Promise<ConvertedLayer> {
    const key = keyOf({ layer, diffId, builder: this.#parts.builder, settings: this.#parts.settings })
    const known = this.#layers.get(key)
    if (known !== undefined) return known
    const started = group.start(async (signal) => {
      const { file, origin } = await this.#packs.run(signal, () => this.#obtain(layer, { key, diffId, signal }))
      this.#files.set(key, file)
      const pushed = group.start(() => this.#pushes.run(signal, () => this.#push(layer, file, { reused: origin !== 'packed', signal })))
      return { source: layer, blob: { digest: file.digest, size: file.size }, open: () => readPackedLayer(file.size, (offset, length) => file.readAt(offset, length)), origin, pushed }
    })
    this.#layers.set(key, started)
    return started
  }

  /** Brings a blob of a converted layer to another place, out of the target's repository if both are at one registry. */
  async sendTo(place: ImageTarget, blob: Pick<Descriptor, 'digest' | 'size'>, { signal }: { signal: AbortSignal }): Promise<void> {
    const descriptor = { mediaType: '', digest: blob.digest, size: blob.size }
    const { repository } = this.#parts.target
    if (await place.hasBlob(descriptor, { signal })) return
    if (repository !== undefined && await place.mountBlob(descriptor, repository, { signal })) return
    const file = [...this.#files.values()].find(({ digest }) => digest === blob.digest)!
    await place.pushBlob(blob, (range) => layerPieces(file, range), { signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.values()) await file[Symbol.asyncDispose]()
  }

  async #obtain(layer: Descriptor, { key, diffId, signal }: { key: string; diffId: Digest; signal: AbortSignal }): Promise<{ file: LayerFile; origin: LayerOrigin }> {
    const { work, cache } = this.#parts
    const kept = await work.find(key, { signal })
    if (kept !== undefined) return { file: kept, origin: 'kept' }
    const cached = cache?.find(layer.digest)
    if (cached !== undefined) {
      const file = await work.create(key, async (append) => {
        for await (const piece of cache!.openBlob(cached, { signal })) await append(piece)
      })
      return { file, origin: 'cached' }
    }
    return { file: await this.#pack(layer, { key, diffId, signal }), origin: 'packed' }
  }

  async #pack(layer: Descriptor, { key, diffId, signal }: { key: string; diffId: Digest; signal: AbortSignal }): Promise<LayerFile> {
    const { source, builder, settings, work, scratch, parallel: { threads } } = this.#parts
    const report = (bytes: number) => publish('image:layer:progress', { digest: layer.digest, phase: 'pull', bytes, totalBytes: layer.size })
    return work.create(key, async (append) => {
      let written = 0
      const sink = {
        write: async (chunk: Uint8Array) => {
          await append(chunk)
          written += chunk.length
          publish('image:layer:progress', { digest: layer.digest, phase: 'convert', bytes: written, totalBytes: 0 })
        },
      }
      const tar = openLayer(source, { layer, diffId, signal, onProgress: report })
      try {
        await builder.pack(withoutReturn(tar), { settings, sink, scratch, threads, signal })
        // the digests are known at the very end only: what the builder left (padding) is read, too
        for await (const _rest of tar);
      } finally {
        await tar.return()
      }
    })
  }

  async #push(layer: Descriptor, file: LayerFile, { reused, signal }: { reused: boolean; signal: AbortSignal }): Promise<void> {
    const { target, cache } = this.#parts
    const done = () => publish('image:layer:progress', { digest: layer.digest, phase: reused ? 'reused' : 'done', bytes: file.size, totalBytes: file.size })
    const descriptor = { mediaType: '', digest: file.digest, size: file.size }
    if (!await target.hasBlob(descriptor, { signal }) && !(await cache?.mountInto(target, descriptor, { signal }) ?? false)) {
      const onProgress = (bytes: number) => publish('image:layer:progress', { digest: layer.digest, phase: 'push', bytes, totalBytes: file.size })
      await target.pushBlob(file, (range) => layerPieces(file, range), { signal, onProgress })
    }
    done()
  }
}

/** What a packed layer depends on; a digest, so that it can be a file name. */
function keyOf({ layer, diffId, builder, settings }: { layer: Descriptor; diffId: Digest; builder: LayerBuilder; settings: PackSettings }): string {
  const { compressor, chunkSize, batchSize, alignedChunk, prefetchPatterns, chunkDict } = settings
  const parts = [KEPT_FORMAT, builder.version, layer.digest, diffId, compressor, chunkSize, batchSize, alignedChunk, prefetchPatterns, chunkDict?.digest ?? '']
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex')
}

/** The same pieces, but whoever stops early does not close the source: the rest is still wanted. */
function withoutReturn(source: AsyncGenerator<Uint8Array, void, undefined>): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => source.next() }) }
}

// Writes one image into a layout directory.

import { hasCode } from '../../core/errors.ts'
import type { Descriptor } from '../../format/oci/descriptor.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { checkManifestSize, verified } from '../content.ts'
import { manifestTypeOf } from '../manifest-type.ts'
import type { BlobContent, Fetched, ImageTarget, Pushed, PushOptions, Signal } from '../types.ts'
import { readManifest } from './layout-source.ts'
import type { LayoutStore } from './layout-store.ts'
import { named, namesOf } from './names.ts'

/** `imageName` is what the image is called in index.json. */
export class LayoutTarget implements ImageTarget {
  readonly name: string
  readonly repository = undefined
  readonly #store: LayoutStore
  readonly #imageName: string

  constructor(name: string, store: LayoutStore, imageName: string) {
    this.name = name
    this.#store = store
    this.#imageName = imageName
  }

  async hasBlob(descriptor: Descriptor, { signal }: Signal): Promise<boolean> {
    signal.throwIfAborted()
    return this.#store.isIntact(descriptor)
  }

  async mountBlob(): Promise<boolean> {
    return false // one layout has one set of blobs: hasBlob said so already
  }

  async pushBlob(blob: Pick<Descriptor, 'digest' | 'size'>, content: BlobContent, { signal, onProgress }: PushOptions): Promise<void> {
    signal.throwIfAborted()
    if (await this.#store.isIntact(blob)) {
      onProgress?.(blob.size)
      return
    }
    await using writer = await this.#store.receive()
    for await (const chunk of verified(content({ offset: 0, length: blob.size, signal }), blob)) {
      signal.throwIfAborted()
      await writer.write(chunk)
      onProgress?.(writer.size)
    }
    await writer.commit(blob.digest)
  }

  async pushStream(content: AsyncIterable<Uint8Array>, { signal, onProgress }: PushOptions): Promise<Pushed> {
    signal.throwIfAborted()
    await using writer = await this.#store.receive()
    for await (const chunk of content) {
      signal.throwIfAborted()
      await writer.write(chunk)
      onProgress?.(writer.size)
    }
    return await writer.commit(undefined)
  }

  async pushManifest(bytes: Uint8Array, { mediaType, final, signal }: Signal & { mediaType: string; final: boolean }): Promise<Descriptor> {
    signal.throwIfAborted()
    checkManifestSize(bytes)
    const descriptor: Descriptor = { mediaType, ...await this.#store.put(bytes) }
    if (final) await this.#store.update((entries) => withNamed(entries, descriptor, this.#imageName), { signal })
    return descriptor
  }

  async fetchManifest(digest: Digest | undefined, { signal }: Signal): Promise<Fetched | undefined> {
    signal.throwIfAborted()
    const entry = digest === undefined ? (await this.#store.entries()).findLast((item) => namesOf(item).includes(this.#imageName)) : undefined
    const wanted = digest ?? entry?.digest
    if (wanted === undefined) return undefined
    try {
      const bytes = await readManifest(this.#store, wanted)
      return { descriptor: { mediaType: manifestTypeOf(bytes, entry?.mediaType, wanted), digest: wanted, size: bytes.length }, bytes }
    } catch (error) {
      if (hasCode(error, 'REGISTRY_NOT_FOUND')) return undefined
      throw error
    }
  }

  async finish({ signal }: Signal): Promise<void> {
    signal.throwIfAborted() // everything is already where it belongs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]()
  }
}

/** `entries` with `descriptor` as the only one called `name`. */
export function withNamed(entries: readonly Descriptor[], descriptor: Descriptor, name: string): readonly Descriptor[] {
  return [...entries.filter((entry) => !namesOf(entry).includes(name)), named(descriptor, name)]
}

// Reads one image of a layout, be it a directory or an archive.

import { CodedError, foreignText } from '../../core/errors.ts'
import type { Descriptor } from '../../format/oci/descriptor.ts'
import { isDigest, splitDigest, type Digest } from '../../format/oci/digest.ts'
import { collect, digestOf, exactly, MAX_MANIFEST_SIZE, mismatch, rangeOf, verified } from '../content.ts'
import { manifestTypeOf } from '../manifest-type.ts'
import type { BlobRange, Fetched, ImageSource, Signal } from '../types.ts'
import type { ReadableLayout } from './layout-store.ts'
import { namesOf, splitName } from './names.ts'

/** Owns `layout`. */
export class LayoutSource implements ImageSource {
  readonly name: string
  readonly repository = undefined
  readonly #layout: ReadableLayout
  readonly #wanted: string | undefined
  #resolved: Fetched | undefined

  /** `wanted`: a name in index.json, a digest, or undefined for the only image there is. */
  constructor(name: string, layout: ReadableLayout, wanted: string | undefined) {
    this.name = name
    this.#layout = layout
    this.#wanted = wanted
  }

  async resolve(options: Signal): Promise<Fetched> {
    if (this.#resolved !== undefined) return this.#resolved
    options.signal.throwIfAborted()
    const wanted = this.#wanted
    if (wanted !== undefined && isDigest(wanted)) return this.#resolved = await this.fetchManifest(wanted, options)
    const entry = chooseEntry(await this.#layout.entries(), wanted, this.#layout.path)
    const { bytes } = await this.#manifest(entry.digest, entry.mediaType)
    if (bytes.length !== entry.size) throw mismatch(entry.digest, `${entry.size} bytes`, `${bytes.length}`)
    return this.#resolved = { descriptor: entry, bytes }
  }

  async fetchManifest(digest: Digest, { signal }: Signal): Promise<Fetched> {
    signal.throwIfAborted()
    return this.#manifest(digest, undefined)
  }

  async *openBlob(descriptor: Descriptor, options: BlobRange): AsyncGenerator<Uint8Array, void, undefined> {
    const { offset, length, whole } = rangeOf(descriptor, options)
    // one byte more than announced is asked for, so that a longer blob is noticed
    const bytes = this.#layout.read(descriptor.digest, { offset, length: whole ? length + 1 : length })
    for await (const chunk of whole ? verified(bytes, descriptor) : exactly(bytes, { what: descriptor.digest, length })) {
      options.signal.throwIfAborted()
      yield chunk
    }
  }

  async exists({ digest }: Descriptor, { signal }: Signal): Promise<boolean> {
    signal.throwIfAborted()
    return await this.#layout.blobSize(digest) !== undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#layout[Symbol.asyncDispose]()
  }

  async #manifest(digest: Digest, mediaType: string | undefined): Promise<Fetched> {
    const bytes = await readManifest(this.#layout, digest)
    return { descriptor: { mediaType: manifestTypeOf(bytes, mediaType, digest), digest, size: bytes.length }, bytes }
  }
}

/** A manifest's bytes, verified. REGISTRY_NOT_FOUND, REGISTRY_DIGEST_MISMATCH, REGISTRY_PROTOCOL beyond 4 MiB. */
export async function readManifest(layout: ReadableLayout, digest: Digest): Promise<Uint8Array> {
  const bytes = await collect(layout.read(digest, { offset: 0, length: MAX_MANIFEST_SIZE + 1 }), MAX_MANIFEST_SIZE)
  const got = digestOf(bytes, splitDigest(digest).algorithm)
  if (got !== digest) throw mismatch(layout.path, digest, got)
  return bytes
}

/** The entry that `wanted` names: exactly, or by its tag alone when that is clear. REGISTRY_NOT_FOUND lists what there is. */
function chooseEntry(entries: readonly Descriptor[], wanted: string | undefined, where: string): Descriptor {
  const listing = () => entries.length === 0 ? 'it is empty' : `it has ${foreignText([...new Set(entries.flatMap(namesOf))].join(', ') || `${entries.length} images without a name`, 500)}`
  if (wanted === undefined) {
    // several names for one image are still one image
    if (new Set(entries.map((entry) => entry.digest)).size === 1) return entries[0]!
    throw new CodedError('REGISTRY_NOT_FOUND', `${where}: name an image; ${listing()}`)
  }
  // the last one wins where a writer did not replace
  const exact = entries.findLast((entry) => namesOf(entry).includes(wanted))
  if (exact !== undefined) return exact
  const byTag = wanted.includes(':') ? [] : entries.filter((entry) => namesOf(entry).some((name) => splitName(name).tag === wanted))
  if (new Set(byTag.map((entry) => entry.digest)).size === 1) return byTag[0]!
  throw new CodedError('REGISTRY_NOT_FOUND', `${where} has no image "${foreignText(wanted)}"; ${listing()}`)
}

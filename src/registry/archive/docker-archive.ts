// What `docker save` writes: manifest.json with configs and layer tars (all versions), next to an OCI layout (since 25), which is preferred.
// From the old form a schema 2 manifest is made, so that everything above sees an ordinary image.
// SPEC: moby image/spec/v1.2.md "Combined Image JSON + Filesystem Changeset Format".

import { createHash } from 'node:crypto'
import { CodedError, foreignText } from '../../core/errors.ts'
import { parseImageConfig, type Descriptor } from '../../format/oci/descriptor.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { formatReference, parseReference, withDefaultTag } from '../../format/oci/reference.ts'
import { collect, digestOf, MAX_MANIFEST_SIZE } from '../content.ts'
import { REF_NAME } from '../layout/names.ts'
import type { ReadableLayout } from '../layout/layout-store.ts'
import { ArchiveLayout, isLayoutArchive, memberText } from './archive-layout.ts'
import { TarFile } from './tar-file.ts'

/** LIMIT: images in one archive; each costs reading its config. */
const MAX_IMAGES = 1000

/** A docker archive as a layout. REGISTRY_NOT_FOUND; REGISTRY_STORE when it is neither form. */
export async function openDockerArchive(file: string, options: { signal: AbortSignal }): Promise<ReadableLayout> {
  const tar = await TarFile.open(file, options)
  try {
    return isLayoutArchive(tar) ? await ArchiveLayout.of(tar) : await DockerArchiveLayout.of(tar, options)
  } catch (error) {
    await tar[Symbol.asyncDispose]()
    throw error
  }
}

/** Where a blob's bytes are: in a member, or made here. */
type Place = { readonly member: string } | { readonly bytes: Uint8Array }

/** Owns `tar`. */
class DockerArchiveLayout implements ReadableLayout {
  readonly path: string
  readonly #tar: TarFile
  readonly #entries: readonly Descriptor[]
  readonly #places: ReadonlyMap<Digest, Place>

  private constructor(tar: TarFile, entries: readonly Descriptor[], places: ReadonlyMap<Digest, Place>) {
    this.path = tar.path
    this.#tar = tar
    this.#entries = entries
    this.#places = places
  }

  static async of(tar: TarFile, { signal }: { signal: AbortSignal }): Promise<DockerArchiveLayout> {
    if (tar.member('manifest.json') === undefined) throw new CodedError('REGISTRY_STORE', `${tar.path} is no docker archive (no manifest.json)`, { file: tar.path })
    const places = new Map<Digest, Place>()
    const entries: Descriptor[] = []
    for (const image of parseImages(await memberText(tar, 'manifest.json'), tar.path)) {
      const manifest = Buffer.from(JSON.stringify(await manifestOf(tar, image, { places, signal })))
      const descriptor: Descriptor = { mediaType: MEDIA_TYPE.dockerManifest, digest: digestOf(manifest), size: manifest.length }
      places.set(descriptor.digest, { bytes: manifest })
      if (image.tags.length === 0) entries.push(descriptor)
      for (const tag of image.tags) entries.push({ ...descriptor, annotations: { [REF_NAME]: formatReference(withDefaultTag(parseReference(tag))) } })
    }
    return new DockerArchiveLayout(tar, entries, places)
  }

  async entries(): Promise<readonly Descriptor[]> {
    return this.#entries
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    const place = this.#places.get(digest)
    if (place === undefined) return undefined
    return 'bytes' in place ? place.bytes.length : this.#tar.member(place.member)?.size
  }

  async *read(digest: Digest, range: { readonly offset: number; readonly length: number }): AsyncGenerator<Uint8Array, void, undefined> {
    const place = this.#places.get(digest)
    if (place === undefined) throw new CodedError('REGISTRY_NOT_FOUND', `${this.path} has no blob ${digest}`, { digest })
    if ('bytes' in place) yield place.bytes.subarray(range.offset, range.offset + range.length)
    else yield* this.#tar.read(place.member, range)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tar[Symbol.asyncDispose]()
  }
}

interface SavedImage { readonly config: string; readonly layers: readonly string[]; readonly tags: readonly string[] }

function parseImages(text: string, where: string): SavedImage[] {
  const wrong = (why: string) => new CodedError('FORMAT_INVALID', `${where}: manifest.json ${why}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new CodedError('FORMAT_INVALID', `${where}: manifest.json is not JSON`, {}, { cause })
  }
  if (!Array.isArray(value)) throw wrong('is not a list')
  if (value.length > MAX_IMAGES) throw wrong(`names more than ${MAX_IMAGES} images`)
  return value.map((item: unknown) => {
    if (typeof item !== 'object' || item === null || !('Config' in item) || typeof item.Config !== 'string') throw wrong('has an image without Config')
    return {
      config: item.Config,
      layers: 'Layers' in item && isTexts(item.Layers) ? item.Layers : [],
      tags: 'RepoTags' in item && isTexts(item.RepoTags) ? item.RepoTags : [],
    }
  })
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

/** The schema 2 manifest of `image`; notes in `places` where its blobs are. */
async function manifestOf(tar: TarFile, image: SavedImage, { places, signal }: { places: Map<Digest, Place>; signal: AbortSignal }): Promise<object> {
  const bytes = await collect(tar.read(image.config, { offset: 0, length: MAX_MANIFEST_SIZE + 1 }), MAX_MANIFEST_SIZE)
  const config = parseImageConfig(bytes)
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== image.layers.length) {
    throw new CodedError('FORMAT_INVALID', `${tar.path}: ${foreignText(image.config, 80)} has ${diffIds.length} diff_ids and ${image.layers.length} layers`)
  }
  const configDigest = digestOf(bytes)
  places.set(configDigest, { member: image.config })
  const layers: Descriptor[] = []
  for (const [index, member] of image.layers.entries()) {
    signal.throwIfAborted()
    const layer = await layerOf(tar, member, diffIds[index]!)
    places.set(layer.digest, { member })
    layers.push(layer)
  }
  return { schemaVersion: 2, mediaType: MEDIA_TYPE.dockerManifest, config: { mediaType: MEDIA_TYPE.dockerConfig, size: bytes.length, digest: configDigest }, layers }
}

/** Layers are plain tars, whose digest is the diffID; some tools put compressed ones in, which have to be read to know theirs. */
async function layerOf(tar: TarFile, member: string, diffId: Digest): Promise<Descriptor> {
  const found = tar.member(member)
  if (found === undefined) throw new CodedError('REGISTRY_NOT_FOUND', `${tar.path} has no layer ${foreignText(member, 80)}`)
  const head = Buffer.from(await collect(tar.read(member, { offset: 0, length: 4 }), 4))
  if (head.length < 4) return { mediaType: MEDIA_TYPE.dockerLayer, digest: diffId, size: found.size }
  const gzip = head.readUInt16BE(0) === 0x1f8b
  if (!gzip && head.readUInt32LE(0) !== 0xfd2fb528) return { mediaType: MEDIA_TYPE.dockerLayer, digest: diffId, size: found.size }
  const hash = createHash('sha256')
  for await (const chunk of tar.read(member, { offset: 0, length: found.size })) hash.update(chunk)
  return { mediaType: gzip ? MEDIA_TYPE.dockerLayerGzip : MEDIA_TYPE.dockerLayerZstd, digest: `sha256:${hash.digest('hex')}`, size: found.size }
}

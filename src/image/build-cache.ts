// Packed layers of earlier conversions in a registry, found by the digest of the source layer. SPEC: spec-surface.md C.2 step 2; the form is
// upstream's: an index with one manifest a platform, whose layers are blobs that name their source.

import { publish } from '../core/diagnostics.ts'
import { isCoded } from '../core/errors.ts'
import { type Descriptor, type Index, type Manifest, parseIndex, parseManifest } from '../format/oci/descriptor.ts'
import { type Digest, isDigest } from '../format/oci/digest.ts'
import { encodeIndex, encodeManifest } from '../format/oci/encode.ts'
import { isIndexType, isManifestType, MEDIA_TYPE, NYDUS_ANNOTATION } from '../format/oci/media-types.ts'
import { matchesPlatform, type Platform } from '../format/oci/platform.ts'
import { type BlobRange, digestOf, type ImageSource, type ImageTarget } from '../registry/index.ts'

export interface BuildCacheOptions {
  /** Opens the reference for reading and for writing; called again for each use, since a source resolves its tag once. */
  readonly openSource: () => Promise<ImageSource>
  readonly openTarget: () => Promise<ImageTarget>
  /** Records of other versions are ignored. */
  readonly version: string
  /** Layers in one manifest of the cache, at most. */
  readonly maxRecords: number
  /** What the layers of this run are packed with: records that say something else are not used. */
  readonly settings: string
}

/** A layer to remember. */
export interface CacheRecord { readonly source: Digest; readonly blob: Pick<Descriptor, 'digest' | 'size'> }

/** Our own addition: upstream leaves it to the user to change the version when options change. */
const SETTINGS_ANNOTATION = 'containerd.io/snapshot/nydus-cache-settings'
/** COMPAT: what upstream derives diffIDs from. */
const UNCOMPRESSED_ANNOTATION = 'containerd.io/uncompressed'
/** COMPAT: the default version is written as none: upstream's nydusify has the flag and does not pass it on (contrib/nydusify pkg/converter/provider/provider.go NewRemoteCache). */
const DEFAULT_VERSION = 'v1'
/** COMPAT: Go's empty image config. */
const EMPTY_CONFIG = Buffer.from('{}')

/** Owns the connection to the cache's repository. */
export class BuildCache implements AsyncDisposable {
  readonly #options: BuildCacheOptions
  readonly #source: ImageSource
  readonly #records: ReadonlyMap<string, Descriptor>

  private constructor(options: BuildCacheOptions, source: ImageSource, records: ReadonlyMap<string, Descriptor>) {
    this.#options = options
    this.#source = source
    this.#records = records
  }

  /** Reads the cache. One that is missing or cannot be read is empty: a cache must not fail a build. */
  static async open(options: BuildCacheOptions, { signal }: { signal: AbortSignal }): Promise<BuildCache> {
    const source = await options.openSource()
    const records = new Map<string, Descriptor>()
    try {
      for (const { manifest } of (await readCache(source, { signal })).manifests) {
        if (!isOfVersion(manifest, options.version)) continue
        for (const layer of manifest.layers) {
          const from = layer.annotations?.[NYDUS_ANNOTATION.sourceDigest]
          const settings = layer.annotations?.[SETTINGS_ANNOTATION]
          if (from !== undefined && isDigest(from) && (settings ?? options.settings) === options.settings) records.set(from, layer)
        }
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      if (error.code !== 'REGISTRY_NOT_FOUND') publish('image:warning:raised', { message: `build cache ${source.name} is not used: ${error.message}` })
    }
    return new BuildCache(options, source, records)
  }

  /** The packed layer made of `source`. */
  find(source: Digest): Descriptor | undefined {
    return this.#records.get(source)
  }

  openBlob(descriptor: Descriptor, options: BlobRange): AsyncIterable<Uint8Array> {
    return this.#source.openBlob(descriptor, options)
  }

  /** Lets `target` take a blob out of the cache's repository, if it is in it and both are at one registry. */
  async mountInto(target: ImageTarget, descriptor: Descriptor, { signal }: { signal: AbortSignal }): Promise<boolean> {
    const known = [...this.#records.values()].some(({ digest }) => digest === descriptor.digest)
    return known && this.#source.repository !== undefined && target.mountBlob(descriptor, this.#source.repository, { signal })
  }

  /**
   * Adds `records` in front of what the cache has now, read again: another job may have written since. The last writer of two wins; both caches
   * are valid. `send` brings a blob into the cache's repository. REGISTRY_*.
   */
  async update(records: readonly CacheRecord[], { platform, send, signal }: { platform: Platform; send: (blob: CacheRecord['blob'], target: ImageTarget) => Promise<void>; signal: AbortSignal }): Promise<void> {
    await using source = await this.#options.openSource()
    await using target = await this.#options.openTarget()
    const current = await readCache(source, { signal }).catch((error: unknown) => {
      if (isCoded(error)) return { manifests: [] }
      throw error
    })
    // COMPAT: upstream tags the manifest itself as long as there is one platform; then nobody says which
    const same = current.manifests.find((one) => one.platform === undefined || matchesPlatform(one.platform, platform))
    const old = same !== undefined && isOfVersion(same.manifest, this.#options.version) ? same.manifest.layers : []
    const layers = new Map<string, Descriptor>()
    for (const layer of [...records.map((record) => this.#layer(record)), ...old]) {
      const key = `${layer.annotations?.[NYDUS_ANNOTATION.sourceDigest]} ${layer.annotations?.[SETTINGS_ANNOTATION]}`
      if (!layers.has(key) && layers.size < this.#options.maxRecords) layers.set(key, layer)
    }

    for (const { blob } of records) await send(blob, target)
    const config = { digest: digestOf(EMPTY_CONFIG), size: EMPTY_CONFIG.length }
    await target.pushBlob(config, async function* () { yield EMPTY_CONFIG }, { signal })
    const manifest = await target.pushManifest(encodeManifest({
      schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: { mediaType: MEDIA_TYPE.ociConfig, ...config }, layers: [...layers.values()],
      annotations: { [NYDUS_ANNOTATION.cacheVersion]: this.#options.version === DEFAULT_VERSION ? '' : this.#options.version },
    }), { mediaType: MEDIA_TYPE.ociManifest, final: false, signal })
    const others = current.manifests.filter((one) => one !== same && one.platform !== undefined).map(({ descriptor }) => descriptor)
    // COMPAT: upstream writes the index anew, indented, to learn its size, and gives up the cache when that is another (acceleration-service pkg/cache/cache.go Fetch)
    const index = encodeIndex({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: [...others, { ...manifest, platform }] }, { indent: true })
    await target.pushManifest(index, { mediaType: MEDIA_TYPE.ociIndex, final: true, signal })
    await target.finish({ signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source[Symbol.asyncDispose]()
  }

  #layer({ source, blob }: CacheRecord): Descriptor {
    return {
      mediaType: MEDIA_TYPE.nydusBlob, digest: blob.digest, size: blob.size,
      annotations: {
        [UNCOMPRESSED_ANNOTATION]: blob.digest,
        [NYDUS_ANNOTATION.blob]: 'true',
        [SETTINGS_ANNOTATION]: this.#options.settings,
        [NYDUS_ANNOTATION.sourceDigest]: source,
      },
    }
  }
}

function isOfVersion({ annotations }: Manifest, version: string): boolean {
  const written = annotations?.[NYDUS_ANNOTATION.cacheVersion] ?? ''
  return written === version || (written === '' && version === DEFAULT_VERSION)
}

interface CacheManifest { readonly descriptor: Descriptor; readonly platform: Platform | undefined; readonly manifest: Manifest }

async function readCache(source: ImageSource, { signal }: { signal: AbortSignal }): Promise<{ readonly manifests: readonly CacheManifest[] }> {
  const { descriptor, bytes } = await source.resolve({ signal })
  if (isManifestType(descriptor.mediaType)) return { manifests: [{ descriptor, platform: undefined, manifest: parseManifest(bytes) }] }
  const index: Index = isIndexType(descriptor.mediaType) ? parseIndex(bytes) : { schemaVersion: 2, manifests: [] }
  const manifests: CacheManifest[] = []
  for (const entry of index.manifests) {
    if (!isManifestType(entry.mediaType)) continue
    manifests.push({ descriptor: entry, platform: entry.platform, manifest: parseManifest((await source.fetchManifest(entry.digest, { signal })).bytes) })
  }
  return { manifests }
}

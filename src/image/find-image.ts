// Which image of a reference is meant: the Nydus one, or the OCI one, for a platform. SPEC: spec-surface.md C.4 (index detection).

import { CodedError } from '../core/errors.ts'
import { type Descriptor, type ImageConfig, type Manifest, parseImageConfig, parseIndex, parseManifest } from '../format/oci/descriptor.ts'
import type { Digest } from '../format/oci/digest.ts'
import { isIndexType, isManifestType, isSchema1Type, MEDIA_TYPE, NYDUS_OS_FEATURE } from '../format/oci/media-types.ts'
import { bestPlatform, formatPlatform, type Platform } from '../format/oci/platform.ts'
import { readBlob, type ImageSource } from '../registry/index.ts'
import { findBootstrapLayer, isNydusManifest } from './nydus-image.ts'
import { refusal } from './refusal.ts'

export interface FoundImage {
  /** As the index had it, or of the manifest itself. */
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
  readonly manifest: Manifest
  readonly config: ImageConfig
  readonly configBytes: Uint8Array
}

export interface FoundNydusImage extends FoundImage {
  readonly bootstrap: Descriptor
  /** What the bootstrap layer unpacks to. */
  readonly diffId: Digest | undefined
}

export interface FindOptions { readonly platform: Platform; readonly signal: AbortSignal }

/** Everything that `source` has for one platform: an index may have an OCI and a Nydus image. */
export interface Found { readonly nydus: FoundNydusImage | undefined; readonly oci: FoundImage | undefined; readonly isIndex: boolean }

/** Resolves `source` and reads the manifests and configs for `platform`. IMAGE_UNSUPPORTED when there is none; REGISTRY_*, FORMAT_INVALID. */
export async function findImages(source: ImageSource, { platform, signal }: FindOptions): Promise<Found> {
  const resolved = await source.resolve({ signal })
  if (isSchema1Type(resolved.descriptor.mediaType)) throw refusal('schema-1', source.name)
  if (!isIndexType(resolved.descriptor.mediaType)) {
    const image = await readImage(source, resolved.descriptor, resolved.bytes, signal)
    return { nydus: asNydus(image), oci: asNydus(image) === undefined ? image : undefined, isIndex: false }
  }
  const offers = parseIndex(resolved.bytes).manifests.filter(({ mediaType }) => isManifestType(mediaType))
  const nydus = await best(source, offers.filter(looksNydus), { platform, signal })
  const oci = await best(source, offers.filter((offer) => !looksNydus(offer)), { platform, signal })
  // An index of converted images only does not mark them: their layers tell.
  const unmarked = oci !== undefined && nydus === undefined ? asNydus(oci) : undefined
  const found = { nydus: nydus === undefined ? unmarked : asNydus(nydus), oci: unmarked === undefined ? oci : undefined, isIndex: true }
  if (found.nydus === undefined && found.oci === undefined) throw refusal('platform', `${source.name} for ${formatPlatform(platform)}`)
  return found
}

/** The Nydus image of `source`. IMAGE_INVALID when it has none. */
export async function findNydusImage(source: ImageSource, options: FindOptions): Promise<FoundNydusImage> {
  const { nydus } = await findImages(source, options)
  if (nydus === undefined) throw new CodedError('IMAGE_INVALID', `${source.name} is not a Nydus image`)
  return nydus
}

function looksNydus({ artifactType, platform }: Descriptor): boolean {
  return artifactType === MEDIA_TYPE.nydusArtifact || (platform?.['os.features']?.includes(NYDUS_OS_FEATURE) ?? false)
}

async function best(source: ImageSource, offers: readonly Descriptor[], { platform, signal }: FindOptions): Promise<FoundImage | undefined> {
  const at = bestPlatform(platform, offers.map((offer) => offer.platform))
  const descriptor = offers[at] ?? (offers.length === 1 && offers[0]?.platform === undefined ? offers[0] : undefined)
  if (descriptor === undefined) return undefined
  return readImage(source, descriptor, (await source.fetchManifest(descriptor.digest, { signal })).bytes, signal)
}

async function readImage(source: ImageSource, descriptor: Descriptor, bytes: Uint8Array, signal: AbortSignal): Promise<FoundImage> {
  const manifest = parseManifest(bytes)
  const configBytes = await readBlob(source, manifest.config, { signal })
  return { descriptor, bytes, manifest, configBytes, config: parseImageConfig(configBytes) }
}

function asNydus(image: FoundImage): FoundNydusImage | undefined {
  const bootstrap = isNydusManifest(image.manifest) ? findBootstrapLayer(image.manifest) : undefined
  if (bootstrap === undefined) return undefined
  return { ...image, bootstrap, diffId: image.config.rootfs.diff_ids[image.manifest.layers.indexOf(bootstrap)] }
}

// What a reference names, manifest by manifest: which are converted, which are copied as they are, which are left out and why.

import { CodedError } from '../core/errors.ts'
import { type Descriptor, type ImageConfig, type Index, type Manifest, parseImageConfig, parseIndex, parseManifest } from '../format/oci/descriptor.ts'
import { isConfigType, isIndexType, isManifestType, isSchema1Type, layerKind } from '../format/oci/media-types.ts'
import { bestPlatform, formatPlatform, matchesPlatform, type Platform } from '../format/oci/platform.ts'
import { readBlob, type Fetched, type ImageSource } from '../registry/index.ts'
import { isNydusManifest } from './nydus-image.ts'
import { refusal, refusalOf, type RefusalReason } from './refusal.ts'

/** One image manifest to work on. `copy`: it is Nydus already. */
export interface PlannedImage {
  readonly action: 'convert' | 'copy'
  /** As the index had it (platform, annotations), or of the manifest itself. */
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
  readonly manifest: Manifest
  readonly config: ImageConfig
  readonly configBytes: Uint8Array
  readonly platform: Platform
}

/** Left out of a target because it is of a kind that cannot be there. */
export interface Skipped { readonly digest: string; readonly platform: string; readonly reason: RefusalReason; readonly message: string }

export interface Plan {
  readonly resolved: Fetched
  /** Set when the reference names an index. */
  readonly index: Index | undefined
  readonly images: readonly PlannedImage[]
  readonly skipped: readonly Skipped[]
}

export interface PlanOptions { readonly platforms: readonly Platform[] | 'all'; readonly signal: AbortSignal }

/** LIMIT: indexes in indexes; buildx makes at most two levels. */
const MAX_INDEX_DEPTH = 4

/**
 * Resolves `source` once and reads every manifest and config that will be needed. Of an index, what cannot be converted is left out and said so;
 * when nothing is left, or a single manifest is of such a kind, IMAGE_UNSUPPORTED with the reason. IMAGE_INVALID, FORMAT_INVALID, REGISTRY_*.
 */
export async function planImage(source: ImageSource, { platforms, signal }: PlanOptions): Promise<Plan> {
  const resolved = await source.resolve({ signal })
  const { mediaType, digest } = resolved.descriptor
  if (isSchema1Type(mediaType)) throw refusal('schema-1', `${source.name} (${digest})`)
  if (!isIndexType(mediaType)) return { resolved, index: undefined, images: [await planManifest(source, resolved, { signal })], skipped: [] }

  const index = parseIndex(resolved.bytes)
  const offers = await flatten(source, index, { depth: 1, signal })
  const wanted = selectPlatforms(offers, platforms)
  const images: PlannedImage[] = []
  const skipped: Skipped[] = []
  for (const descriptor of wanted) {
    try {
      const fetched = await source.fetchManifest(descriptor.digest, { signal })
      images.push(await planManifest(source, { descriptor, bytes: fetched.bytes }, { signal }))
    } catch (error) {
      const reason = refusalOf(error)
      if (reason === undefined) throw error
      skipped.push({ digest: descriptor.digest, platform: platformText(descriptor), reason, message: error instanceof Error ? error.message : '' })
    }
  }
  if (images.length === 0) throw nothingLeft(source, { offers, platforms, skipped })
  return { resolved, index, images, skipped }
}

/** The manifests that `platforms` select: the best one for each, in the index's order; with `all` every one. */
function selectPlatforms(offers: readonly Descriptor[], platforms: readonly Platform[] | 'all'): readonly Descriptor[] {
  if (platforms === 'all') return offers
  const images = offers.filter((offer) => !isAttestation(offer))
  const chosen = new Set(platforms.map((platform) => bestPlatform(platform, images.map((offer) => offer.platform))))
  // COMPAT: indexes of one image sometimes do not say for which platform it is.
  const only = images.length === 1 && images[0]?.platform === undefined
  return images.filter((_, at) => only || chosen.has(at))
}

async function flatten(source: ImageSource, index: Index, { depth, signal }: { depth: number; signal: AbortSignal }): Promise<Descriptor[]> {
  if (depth > MAX_INDEX_DEPTH) throw new CodedError('IMAGE_INVALID', `${source.name}: indexes nested more than ${MAX_INDEX_DEPTH} deep`)
  const offers: Descriptor[] = []
  for (const descriptor of index.manifests) {
    if (!isIndexType(descriptor.mediaType)) { offers.push(descriptor); continue }
    const inner = await source.fetchManifest(descriptor.digest, { signal })
    offers.push(...await flatten(source, parseIndex(inner.bytes), { depth: depth + 1, signal }))
  }
  return offers
}

/** SPEC: docker buildx attestations: platform unknown/unknown and an annotation that says what it is about. */
function isAttestation({ platform, annotations }: Descriptor): boolean {
  return annotations?.['vnd.docker.reference.type'] === 'attestation-manifest' || (platform?.os === 'unknown' && platform.architecture === 'unknown')
}

async function planManifest(source: ImageSource, { descriptor, bytes }: Fetched, { signal }: { signal: AbortSignal }): Promise<PlannedImage> {
  const what = `${source.name} (${descriptor.digest}${descriptor.platform === undefined ? '' : `, ${formatPlatform(descriptor.platform)}`})`
  if (isAttestation(descriptor)) throw refusal('attestation', what)
  if (isSchema1Type(descriptor.mediaType)) throw refusal('schema-1', what)
  if (!isManifestType(descriptor.mediaType)) throw refusal('artifact', `${what}, ${descriptor.mediaType}`)
  const manifest = parseManifest(bytes)
  if (descriptor.platform?.os === 'windows') throw refusal('windows', what)
  if (!isConfigType(manifest.config.mediaType)) throw refusal('artifact', `${what}, ${manifest.artifactType ?? manifest.config.mediaType}`)
  if (manifest.layers.length > 0 && manifest.layers.every(({ mediaType }) => mediaType === 'application/vnd.in-toto+json')) throw refusal('attestation', what)

  const configBytes = await readBlob(source, manifest.config, { signal })
  const config = parseImageConfig(configBytes)
  if (config.os === 'windows') throw refusal('windows', what)
  const copy = isNydusManifest(manifest)
  if (!copy) checkLayers(manifest, config, what)
  return { action: copy ? 'copy' : 'convert', descriptor, bytes, manifest, config, configBytes, platform: descriptor.platform ?? platformOf(config) }
}

function checkLayers({ layers }: Manifest, { rootfs }: ImageConfig, what: string): void {
  for (const [at, { mediaType, digest }] of layers.entries()) {
    const layer = `${what}, layer ${at + 1} of ${layers.length} (${digest})`
    if (mediaType.endsWith('+encrypted')) throw refusal('encrypted-layer', layer)
    const kind = layerKind(mediaType)
    if (kind === undefined) throw refusal('layer-type', `${layer} is "${mediaType}"`)
    if (kind.foreign) throw refusal('foreign-layer', layer)
  }
  if (rootfs.diff_ids.length !== layers.length) {
    throw new CodedError('IMAGE_INVALID', `${what}: the config has ${rootfs.diff_ids.length} diff_ids for ${layers.length} layers`, { diffIds: rootfs.diff_ids.length, layers: layers.length })
  }
}

function platformOf({ os, architecture, variant }: ImageConfig): Platform {
  return { architecture, os, ...(variant === undefined ? {} : { variant }) }
}

function platformText({ platform }: Descriptor): string {
  return platform === undefined ? '' : formatPlatform(platform)
}

function nothingLeft(source: ImageSource, { offers, platforms, skipped }: { offers: readonly Descriptor[]; platforms: PlanOptions['platforms']; skipped: readonly Skipped[] }): CodedError {
  const first = skipped.find(({ reason }) => reason !== 'attestation') ?? skipped[0]
  if (first !== undefined) return refusal(first.reason, `${source.name}: nothing to convert; ${first.digest}`)
  const wanted = platforms === 'all' ? 'any platform' : platforms.map(formatPlatform).join(', ')
  const windows = platforms !== 'all' && offers.some(({ platform }) => platform?.os === 'windows') && offers.every(({ platform }) => platform?.os === 'windows' || (platform !== undefined && !platforms.some((one) => matchesPlatform(one, platform))))
  const has = [...new Set(offers.map(platformText))].filter((text) => text !== '').join(', ')
  return refusal(windows && offers.every(({ platform }) => platform?.os === 'windows') ? 'windows' : 'platform', `${source.name} for ${wanted} (it has ${has || 'none'})`)
}

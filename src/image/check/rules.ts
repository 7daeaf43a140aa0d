// Rules that the manifest of a Nydus image keeps, by itself and beside its source. SPEC: spec-surface.md C.3, C.5 "manifest".

import { isDeepStrictEqual } from 'node:util'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import type { ImageConfig } from '../../format/oci/descriptor.ts'
import { splitDigest } from '../../format/oci/digest.ts'
import { isConfigType, MEDIA_TYPE, NYDUS_ANNOTATION } from '../../format/oci/media-types.ts'
import type { FoundImage, FoundNydusImage } from '../find-image.ts'
import { isBlobLayer, isBootstrapLayer } from '../nydus-image.ts'

/** The rules that `target` breaks, each as a sentence. */
export function* brokenManifestRules({ manifest, config, bootstrap }: FoundNydusImage): Generator<string> {
  if (!isConfigType(manifest.config.mediaType)) yield `the config has the media type ${manifest.config.mediaType}`
  if (manifest.layers.at(-1) !== bootstrap) yield 'the bootstrap layer is not the last one'
  const version = bootstrap.annotations?.[NYDUS_ANNOTATION.fsVersion]
  if (version === undefined) yield 'the bootstrap layer does not say which format version it has'
  for (const [at, layer] of manifest.layers.entries()) {
    if (isBootstrapLayer(layer)) continue
    const name = `layer ${at + 1} (${layer.digest})`
    if (!isBlobLayer(layer)) yield `${name} is neither a blob nor a bootstrap: ${layer.mediaType}`
    else if (layer.mediaType !== MEDIA_TYPE.nydusBlob) yield `${name} is a blob of media type ${layer.mediaType}`
    else if (layer.annotations?.[NYDUS_ANNOTATION.blob] !== 'true') yield `${name} has no annotation ${NYDUS_ANNOTATION.blob}`
    const diffId = config.rootfs.diff_ids[at]
    if (isBlobLayer(layer) && diffId !== undefined && diffId !== layer.digest) yield `${name} has the diff_id ${diffId}, not its own digest`
  }
  if (config.rootfs.diff_ids.length !== manifest.layers.length) yield `the config has ${config.rootfs.diff_ids.length} diff_ids for ${manifest.layers.length} layers`
}

/** What a runtime would do differently with `target` than with `source`. COMPAT: ArgsEscaped is lost by some tools and means nothing on Linux. */
export function* configDifferences(target: ImageConfig, source: ImageConfig): Generator<string> {
  for (const key of ['architecture', 'os', 'variant', 'author', 'created'] as const) {
    if (target[key] !== source[key]) yield `config.${key} is ${JSON.stringify(target[key])}, in the source ${JSON.stringify(source[key])}`
  }
  const [ours, theirs] = [meaning(target), meaning(source)]
  for (const key of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
    if (!isDeepStrictEqual(ours[key], theirs[key])) yield `config.config.${key} is ${JSON.stringify(ours[key])}, in the source ${JSON.stringify(theirs[key])}`
  }
}

/** Empty values are left out by some writers and written by others. */
function meaning({ config = {} }: ImageConfig): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([key, value]) => key !== 'ArgsEscaped' && !isNothing(value)))
}

function isNothing(value: unknown): boolean {
  if (value === null || value === '' || value === false || value === 0) return true
  return typeof value === 'object' && Object.keys(value).length === 0
}

/** Whether `target` says that it was made of `source`. */
export function* sourceRules(target: FoundNydusImage, source: FoundImage): Generator<string> {
  const said = target.manifest.annotations?.[NYDUS_ANNOTATION.sourceDigest]
  if (said !== undefined && said !== source.descriptor.digest) yield `it says that it was made of ${said}; the source is ${source.descriptor.digest}`
}

/** Blobs that the bootstrap reads from and the manifest does not have. */
export function* missingBlobs(view: BootstrapView, { manifest }: FoundNydusImage): Generator<string> {
  const layers = new Set<string>(manifest.layers.map(({ digest }) => splitDigest(digest).hex))
  for (const { blobId } of view.blobs) if (!layers.has(blobId)) yield `the bootstrap names the blob ${blobId}, which is no layer of the manifest`
}

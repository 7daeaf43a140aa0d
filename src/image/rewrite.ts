// From the manifest and config of a source image to those of its Nydus image. Pure. SPEC: spec-surface.md C.3, C.4.

import type { Descriptor, HistoryItem, ImageConfig, Index, Manifest } from '../format/oci/descriptor.ts'
import type { Digest } from '../format/oci/digest.ts'
import { encodeImageConfig, encodeIndex, encodeManifest } from '../format/oci/encode.ts'
import { isIndexType, MEDIA_TYPE, NYDUS_ANNOTATION, ociMediaType } from '../format/oci/media-types.ts'
import type { Platform } from '../format/oci/platform.ts'

/** Bytes to publish, and the type under which. */
export interface Document { readonly bytes: Uint8Array; readonly mediaType: string }

/** The history items that upstream's converter writes; their texts are searched for by other tools. No time: the same image twice is the same config. */
const BOOTSTRAP_HISTORY: HistoryItem = { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }
const EMPTY_LAYER_HISTORY: HistoryItem = { created_by: 'Nydus Converter', comment: 'Nydus Empty Layer' }

/** A tar of nothing (two zero blocks) as gzip: 32 bytes, the same as Go's writers make, so that registries have it already. */
export const EMPTY_LAYER = Buffer.from('H4sIAAAAAAAA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=', 'base64')
const EMPTY_LAYER_DIGEST: Digest = 'sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1'
const EMPTY_TAR_DIGEST: Digest = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef'

/** A packed layer in a manifest. Its diffID is its digest: nobody unpacks it. */
export function blobDescriptor({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Descriptor {
  return { mediaType: MEDIA_TYPE.nydusBlob, digest, size, annotations: { [NYDUS_ANNOTATION.blob]: 'true' } }
}

/** The layer with the bootstrap; `oci`: in an OCI manifest, whatever the source was. */
export function bootstrapDescriptor({ digest, size }: Pick<Descriptor, 'digest' | 'size'>, { oci, fsVersion }: { oci: boolean; fsVersion: string }): Descriptor {
  return {
    mediaType: oci ? MEDIA_TYPE.ociLayerGzip : MEDIA_TYPE.dockerLayerGzip, digest, size,
    annotations: { [NYDUS_ANNOTATION.fsVersion]: fsVersion, [NYDUS_ANNOTATION.bootstrap]: 'true' },
  }
}

/** The config with other layers; everything else, unknown keys included, as in the source. */
export function nydusConfig(config: ImageConfig, diffIds: readonly Digest[]): Uint8Array {
  return encodeImageConfig({ ...config, rootfs: { ...config.rootfs, diff_ids: diffIds }, history: [...config.history ?? [], BOOTSTRAP_HISTORY] }, { foreignKeys: 'keep' })
}

export interface NydusManifestParts {
  readonly source: { readonly descriptor: Descriptor; readonly manifest: Manifest; readonly reference: string }
  readonly config: Pick<Descriptor, 'digest' | 'size'>
  /** Blobs, then the bootstrap. */
  readonly layers: readonly Descriptor[]
  readonly fsVersion: string
  readonly builderVersion: string
  /** Docker types become OCI types. */
  readonly oci: boolean
  /** The manifest goes beside its OCI twin: its config has a type that only Nydus snapshotters know. */
  readonly besideOci: boolean
  /** Name the source as `subject`. */
  readonly referrer: boolean
}

/** The manifest of the Nydus image. */
export function nydusManifest({ source, config, layers, fsVersion, builderVersion, oci, besideOci, referrer }: NydusManifestParts): Document {
  const { manifest, descriptor } = source
  const mediaType = oci ? ociMediaType(descriptor.mediaType) : descriptor.mediaType
  const configType = oci ? ociMediaType(manifest.config.mediaType) : manifest.config.mediaType
  const { data: _embedded, ...configFields } = manifest.config // an embedded config would be the source's
  return {
    mediaType,
    bytes: encodeManifest({
      schemaVersion: 2,
      mediaType,
      ...(manifest.artifactType === undefined ? {} : { artifactType: manifest.artifactType }),
      config: { ...configFields, mediaType: besideOci ? MEDIA_TYPE.nydusConfig : configType, digest: config.digest, size: config.size },
      layers,
      ...(referrer ? { subject: { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.size } } : {}),
      annotations: {
        ...manifest.annotations,
        [NYDUS_ANNOTATION.builderVersion]: builderVersion,
        [NYDUS_ANNOTATION.fsVersion]: fsVersion,
        [NYDUS_ANNOTATION.sourceDigest]: descriptor.digest,
        [NYDUS_ANNOTATION.sourceReference]: source.reference,
      },
    }),
  }
}

/** The OCI twin in a merged index: an empty layer in front, so that runtimes never take its unpacked layers for those of the Nydus image. */
export interface TwinParts { readonly descriptor: Descriptor; readonly manifest: Manifest; readonly config: ImageConfig }

/** The twin's config; push it before the manifest that names it. */
export function twinConfig({ config }: Pick<TwinParts, 'config'>): Uint8Array {
  return encodeImageConfig({
    ...config,
    rootfs: { ...config.rootfs, diff_ids: [EMPTY_TAR_DIGEST, ...config.rootfs.diff_ids] },
    history: [EMPTY_LAYER_HISTORY, ...config.history ?? []],
  }, { foreignKeys: 'keep' })
}

/** The OCI manifest that stands beside the Nydus one in a merged index. SPEC: spec-surface.md C.4. */
export function twinManifest({ descriptor, manifest }: TwinParts, config: Pick<Descriptor, 'digest' | 'size'>): Document {
  const docker = descriptor.mediaType === MEDIA_TYPE.dockerManifest
  const empty: Descriptor = {
    mediaType: docker ? MEDIA_TYPE.dockerLayerGzip : MEDIA_TYPE.ociLayerGzip, digest: EMPTY_LAYER_DIGEST, size: EMPTY_LAYER.length,
    annotations: { [NYDUS_ANNOTATION.emptyLayer]: 'true' },
  }
  return {
    mediaType: descriptor.mediaType,
    bytes: encodeManifest({
      ...manifest,
      mediaType: descriptor.mediaType,
      config: { mediaType: docker ? MEDIA_TYPE.dockerConfig : MEDIA_TYPE.ociConfig, digest: config.digest, size: config.size },
      layers: [empty, ...manifest.layers],
      annotations: { ...manifest.annotations, [NYDUS_ANNOTATION.sourceDigest]: descriptor.digest },
    }),
  }
}

/** One image of a merged index. */
export interface MergedEntry { readonly platform: Platform; readonly oci: Descriptor; readonly sourceDigest: Digest; readonly nydus: Descriptor }

/** The index with both kinds: OCI manifests first, then the Nydus ones, told apart by `artifactType`. */
export function mergedIndex(entries: readonly MergedEntry[]): Document {
  const manifests: Descriptor[] = [
    ...entries.map(({ oci, platform, sourceDigest }) => ({ ...oci, annotations: { ...oci.annotations, [NYDUS_ANNOTATION.sourceDigest]: sourceDigest }, platform })),
    ...entries.map(({ nydus, platform }) => ({ ...nydus, platform, artifactType: MEDIA_TYPE.nydusArtifact })),
  ]
  return { mediaType: MEDIA_TYPE.ociIndex, bytes: encodeIndex({ schemaVersion: 2, manifests }) } // COMPAT: upstream leaves the type to the registry
}

/** The source's index with other manifests in it. */
export function convertedIndex(source: { readonly mediaType: string; readonly index: Index }, manifests: readonly Descriptor[], { oci }: { oci: boolean }): Document {
  const mediaType = oci ? MEDIA_TYPE.ociIndex : isIndexType(source.mediaType) ? source.mediaType : MEDIA_TYPE.ociIndex
  const { annotations, artifactType } = source.index
  return {
    mediaType,
    bytes: encodeIndex({ schemaVersion: 2, mediaType, ...(artifactType === undefined ? {} : { artifactType }), manifests, ...(annotations === undefined ? {} : { annotations }) }),
  }
}

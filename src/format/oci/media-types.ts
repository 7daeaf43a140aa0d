// Media types of manifests, configs and layers: OCI, Docker schema 2 (and 1, to refuse it by name), Nydus.
// SPEC: opencontainers/image-spec media-types.md; distribution manifest-v2-2; nydus-snapshotter pkg/converter/constant.go.

/** Media types, spelled as on the wire. */
export const MEDIA_TYPE = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  ociLayerNonDistributable: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
  ociLayerNonDistributableGzip: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  ociLayerNonDistributableZstd: 'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
  ociEmptyJson: 'application/vnd.oci.empty.v1+json',
  dockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  dockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  dockerForeignLayer: 'application/vnd.docker.image.rootfs.foreign.diff.tar',
  dockerForeignLayerGzip: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  dockerSchema1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerSchema1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  nydusBlob: 'application/vnd.oci.image.layer.nydus.blob.v1',
  nydusArtifact: 'application/vnd.nydus.image.manifest.v1+json',
  nydusConfig: 'application/vnd.nydus.image.config.v1+json',
} as const

/** Annotation keys of a Nydus image. */
export const NYDUS_ANNOTATION = {
  blob: 'containerd.io/snapshot/nydus-blob',
  bootstrap: 'containerd.io/snapshot/nydus-bootstrap',
  fsVersion: 'containerd.io/snapshot/nydus-fs-version',
  ref: 'containerd.io/snapshot/nydus-ref',
  encryptedBlob: 'containerd.io/snapshot/nydus-encrypted-blob',
  emptyLayer: 'containerd.io/snapshot/nydus-empty-layer',
  sourceDigest: 'containerd.io/snapshot/nydus-source-digest',
  sourceReference: 'containerd.io/snapshot/nydus-source-reference',
  builderVersion: 'containerd.io/snapshot/nydus-builder-version',
  cacheVersion: 'containerd.io/snapshot/nydus-cache-version',
  artifactType: 'containerd.io/snapshot/nydus-artifact-type',
  commitBlobs: 'containerd.io/snapshot/nydus-commit-blobs',
  prefetchBlob: 'containerd.io/snapshot/nydus-separated-blob-with-prefetch-files',
} as const

/** `platform["os.features"]` value that old Nydus images carry in an index. */
export const NYDUS_OS_FEATURE = 'nydus.remoteimage.v1'

/** Everything a manifest GET offers to accept, best first; schema 1 stays out so that registries do not rewrite to it. */
export const MANIFEST_ACCEPT: readonly string[] = [
  MEDIA_TYPE.ociIndex, MEDIA_TYPE.ociManifest, MEDIA_TYPE.dockerManifestList, MEDIA_TYPE.dockerManifest,
]

/** How a layer's bytes are packed. */
export type LayerCompression = 'none' | 'gzip' | 'zstd'

/** What a layer media type says: packing, and whether the layer may be pushed elsewhere (`foreign`: it may not). */
export interface LayerKind { readonly compression: LayerCompression; readonly foreign: boolean }

const LAYER_KINDS: ReadonlyMap<string, LayerKind> = new Map<string, LayerKind>([
  [MEDIA_TYPE.ociLayer, { compression: 'none', foreign: false }],
  [MEDIA_TYPE.ociLayerGzip, { compression: 'gzip', foreign: false }],
  [MEDIA_TYPE.ociLayerZstd, { compression: 'zstd', foreign: false }],
  [MEDIA_TYPE.dockerLayer, { compression: 'none', foreign: false }],
  [MEDIA_TYPE.dockerLayerGzip, { compression: 'gzip', foreign: false }],
  [MEDIA_TYPE.dockerLayerZstd, { compression: 'zstd', foreign: false }],
  [MEDIA_TYPE.ociLayerNonDistributable, { compression: 'none', foreign: true }],
  [MEDIA_TYPE.ociLayerNonDistributableGzip, { compression: 'gzip', foreign: true }],
  [MEDIA_TYPE.ociLayerNonDistributableZstd, { compression: 'zstd', foreign: true }],
  [MEDIA_TYPE.dockerForeignLayer, { compression: 'none', foreign: true }],
  [MEDIA_TYPE.dockerForeignLayerGzip, { compression: 'gzip', foreign: true }],
])

/** What `mediaType` says about a tar layer; undefined when it is not a tar layer (a Nydus blob, an artifact's payload). */
export function layerKind(mediaType: string): LayerKind | undefined {
  return LAYER_KINDS.get(mediaType)
}

/** An OCI index or a Docker manifest list. */
export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPE.ociIndex || mediaType === MEDIA_TYPE.dockerManifestList
}

/** An OCI or Docker schema 2 manifest of one image. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPE.ociManifest || mediaType === MEDIA_TYPE.dockerManifest
}

/** A Docker schema 1 manifest, signed or not. */
export function isSchema1Type(mediaType: string): boolean {
  return mediaType === MEDIA_TYPE.dockerSchema1 || mediaType === MEDIA_TYPE.dockerSchema1Signed
}

/** The config of an image, OCI or Docker. */
export function isConfigType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPE.ociConfig || mediaType === MEDIA_TYPE.dockerConfig || mediaType === MEDIA_TYPE.nydusConfig
}

const DOCKER_TO_OCI: ReadonlyMap<string, string> = new Map<string, string>([
  [MEDIA_TYPE.dockerManifestList, MEDIA_TYPE.ociIndex],
  [MEDIA_TYPE.dockerManifest, MEDIA_TYPE.ociManifest],
  [MEDIA_TYPE.dockerConfig, MEDIA_TYPE.ociConfig],
  [MEDIA_TYPE.dockerLayer, MEDIA_TYPE.ociLayer],
  [MEDIA_TYPE.dockerLayerGzip, MEDIA_TYPE.ociLayerGzip],
  [MEDIA_TYPE.dockerLayerZstd, MEDIA_TYPE.ociLayerZstd],
  [MEDIA_TYPE.dockerForeignLayer, MEDIA_TYPE.ociLayerNonDistributable],
  [MEDIA_TYPE.dockerForeignLayerGzip, MEDIA_TYPE.ociLayerNonDistributableGzip],
])

/** The OCI media type that means the same as a Docker one; any other type comes back unchanged. */
export function ociMediaType(mediaType: string): string {
  return DOCKER_TO_OCI.get(mediaType) ?? mediaType
}

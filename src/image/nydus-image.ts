// What makes an image a Nydus image, as its consumers look for it. SPEC: spec-surface.md C.3 "Bootstrap layer detection".

import type { Descriptor, Manifest } from '../format/oci/descriptor.ts'
import { layerKind, MEDIA_TYPE, NYDUS_ANNOTATION } from '../format/oci/media-types.ts'

/** Inside the bootstrap layer's tar. */
export const BOOTSTRAP_PATH = 'image/image.boot'

/** Whether `layer` holds the bootstrap: a gzip tar with the annotation, searched from the last layer. */
export function isBootstrapLayer(layer: Descriptor): boolean {
  return layer.annotations?.[NYDUS_ANNOTATION.bootstrap] === 'true' && layerKind(layer.mediaType)?.compression === 'gzip'
}

/** Whether `layer` is a blob of chunks. */
export function isBlobLayer(layer: Descriptor): boolean {
  return layer.mediaType === MEDIA_TYPE.nydusBlob || layer.annotations?.[NYDUS_ANNOTATION.blob] === 'true'
}

/** The bootstrap layer of a Nydus image; undefined for every other image. */
export function findBootstrapLayer({ layers }: Pick<Manifest, 'layers'>): Descriptor | undefined {
  return layers.findLast(isBootstrapLayer)
}

/** Whether an image is Nydus already: then it is left alone. */
export function isNydusManifest(manifest: Pick<Manifest, 'layers'>): boolean {
  return manifest.layers.some((layer) => isBootstrapLayer(layer) || isBlobLayer(layer))
}

// A layer on its way from a source to whoever reads its tar: packed bytes verified, unpacked, unpacked bytes verified.

import { createHash } from 'node:crypto'
import { CodedError } from '../core/errors.ts'
import type { Descriptor } from '../format/oci/descriptor.ts'
import { type Digest, splitDigest } from '../format/oci/digest.ts'
import { decompressAs, sniffCompression } from '../native/sniff-compression.ts'
import type { ImageSource } from '../registry/index.ts'

export interface OpenLayerOptions {
  readonly layer: Descriptor
  /** What the config says that the unpacked tar hashes to; undefined: not checked. */
  readonly diffId: Digest | undefined
  readonly signal: AbortSignal
  /** Packed bytes read so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined
}

/**
 * The uncompressed tar of a layer; each piece is good until the next one is asked for. The iteration ends with an error instead of normally when the packed bytes are not those of the descriptor
 * (REGISTRY_DIGEST_MISMATCH) or the unpacked ones not those of `diffId` (IMAGE_INVALID); so read to its end. How a layer is packed is told by its
 * first bytes, as containerd does: media types are often wrong. CODEC_CORRUPT.
 */
export async function* openLayer(source: ImageSource, { layer, diffId, signal, onProgress }: OpenLayerOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = diffId === undefined ? undefined : createHash(splitDigest(diffId).algorithm)
  for await (const piece of unpacked(counted(source.openBlob(layer, { signal }), onProgress), signal)) {
    hash?.update(piece)
    yield piece
  }
  if (diffId === undefined || hash === undefined) return
  const got = hash.digest('hex')
  if (got !== splitDigest(diffId).hex) {
    throw new CodedError('IMAGE_INVALID', `layer ${layer.digest} unpacks to ${splitDigest(diffId).algorithm}:${got}, the config says ${diffId}`, { want: diffId, got })
  }
}

async function* counted(source: AsyncIterable<Uint8Array>, onProgress: ((bytes: number) => void) | undefined): AsyncGenerator<Uint8Array, void, undefined> {
  let bytes = 0
  for await (const piece of source) {
    yield piece
    bytes += piece.length
    onProgress?.(bytes)
  }
}

async function* unpacked(source: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  const { compression, stream } = await sniffCompression(source)
  yield* decompressAs(compression, stream, { signal, reuseBuffers: true })
}

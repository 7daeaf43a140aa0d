// Small images for tests of the registry layer, and the calls that every test makes.

import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import type { Descriptor } from '../../src/format/oci/descriptor.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { digestOf, type BlobContent, type ImageTarget } from '../../src/registry/index.ts'

export interface TestImage {
  readonly config: { readonly descriptor: Descriptor; readonly bytes: Buffer }
  readonly layers: readonly { readonly descriptor: Descriptor; readonly bytes: Buffer }[]
  readonly manifest: { readonly descriptor: Descriptor; readonly bytes: Buffer }
}

export function blobOf(bytes: Buffer, mediaType: string): { descriptor: Descriptor; bytes: Buffer } {
  return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length }, bytes }
}

/** An image with one uncompressed layer of random bytes for each of `sizes`. */
export function makeImage(sizes: readonly number[]): TestImage {
  const layers = sizes.map((size) => blobOf(randomBytes(size), MEDIA_TYPE.ociLayer))
  const config = blobOf(Buffer.from(JSON.stringify({
    architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.descriptor.digest) },
  })), MEDIA_TYPE.ociConfig)
  const manifest = blobOf(Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: config.descriptor, layers: layers.map((layer) => layer.descriptor),
  })), MEDIA_TYPE.ociManifest)
  return { config, layers, manifest }
}

export function contentOf(bytes: Buffer): BlobContent {
  return async function* ({ offset, length }) {
    for (let at = offset; at < offset + length; at += 65536) yield bytes.subarray(at, Math.min(at + 65536, offset + length))
  }
}

/** Pushes the whole image, its manifest last. */
export async function pushImage(target: ImageTarget, image: TestImage, signal: AbortSignal): Promise<void> {
  for (const { descriptor, bytes } of [image.config, ...image.layers]) await target.pushBlob(descriptor, contentOf(bytes), { signal })
  await target.pushManifest(image.manifest.bytes, { mediaType: image.manifest.descriptor.mediaType, final: true, signal })
  await target.finish({ signal })
}

/** A directory that is gone after the test. */
export async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'nydus-registry-'))
  return { path: directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) }
}

/** Retries as the real ones, but in milliseconds. */
export const QUICK_RETRY = { attempts: 4, baseMs: 2, maxMs: 10 }

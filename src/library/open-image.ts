// openImage(): a name or a bootstrap in, files out.

import { stat } from 'node:fs/promises'
import path from 'node:path'
import { CodedError } from '../core/errors.ts'
import { findNydusImage, readBootstrap, SourceBackend } from '../image/index.ts'
import { RafsImage } from '../rafs/index.ts'
import { openSource, type RegistryOptions } from '../registry/index.ts'
import { type BlobBackend, LocalfsBackend } from '../storage/index.ts'
import { ImageFiles } from './image-files.ts'
import { platformOf, signalOf } from './places.ts'

export interface OpenImageRequest {
  readonly registry?: RegistryOptions | undefined
  readonly platform?: string | undefined
  /** Keeps what was fetched for the next time; without one, some chunks stay in memory. */
  readonly cacheDirectory?: string | undefined
  /** For a bootstrap file: the directory of its blobs. Default: the bootstrap's own. */
  readonly blobDirectory?: string | undefined
  /** Where blobs are, instead of what the name says. Closed with the image. */
  readonly backend?: BlobBackend | undefined
  /** Ends the opening; reads have signals of their own. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Opens a Nydus image: a reference (`docker://…` or bare), `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, or the path of a bootstrap file (begins
 * with `/` or `./`, or `file:PATH`). Fetches the bootstrap and nothing else. IMAGE_INVALID when it is no Nydus image; REGISTRY_*, RAFS_NOT_FOUND, FORMAT_*.
 */
export async function openImage(image: string, request: OpenImageRequest = {}): Promise<ImageFiles> {
  const signal = signalOf(request.signal)
  const file = bootstrapFile(image)
  return new ImageFiles(file === undefined ? await fromReference(image, request, signal) : await fromBootstrap(file, request, signal))
}

function bootstrapFile(image: string): string | undefined {
  if (image.startsWith('file:')) return image.slice('file:'.length)
  return /^\.{0,2}\//.test(image) ? image : undefined
}

async function fromBootstrap(file: string, { backend, blobDirectory, cacheDirectory }: OpenImageRequest, signal: AbortSignal): Promise<RafsImage> {
  const found = await stat(file).catch(() => undefined)
  if (found?.isFile() !== true) throw new CodedError('RAFS_NOT_FOUND', `there is no bootstrap ${file}`, { file })
  const blobs = backend ?? new LocalfsBackend({ dir: blobDirectory ?? path.dirname(file) })
  return opened(blobs, { bootstrap: file, cacheDirectory, signal })
}

async function fromReference(image: string, { registry, platform, backend, cacheDirectory }: OpenImageRequest, signal: AbortSignal): Promise<RafsImage> {
  const source = await openSource(image, { ...registry, signal })
  let isOwned = false
  try {
    const found = await findNydusImage(source, { platform: platformOf(platform), signal })
    const bootstrap = await readBootstrap(source, found.bootstrap, { diffId: found.diffId, signal })
    isOwned = backend === undefined
    return await opened(backend ?? new SourceBackend(source, found.manifest), { bootstrap, cacheDirectory, signal })
  } finally {
    if (!isOwned) await source[Symbol.asyncDispose]()
  }
}

async function opened(backend: BlobBackend, { bootstrap, cacheDirectory, signal }: { bootstrap: string | Uint8Array; cacheDirectory: string | undefined; signal: AbortSignal }): Promise<RafsImage> {
  try {
    return await RafsImage.open({ bootstrap, backend, signal, ...(cacheDirectory === undefined ? {} : { cacheDirectory }) })
  } catch (error) {
    await backend.close()
    throw error
  }
}

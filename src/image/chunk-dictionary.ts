// A chunk dictionary: the bootstrap of another image, whose chunks need not be stored again. Blobs of it that are used become layers of the target.

import { CodedError } from '../core/errors.ts'
import { parseManifest, type Descriptor, type Manifest } from '../format/oci/descriptor.ts'
import { type Digest, sha256Digest } from '../format/oci/digest.ts'
import { isManifestType } from '../format/oci/media-types.ts'
import { copyBlob, digestOf, type ImageSource, type ImageTarget, TempFile } from '../registry/index.ts'
import { readBootstrap } from './bootstrap-layer.ts'
import { findBootstrapLayer } from './nydus-image.ts'

/** Owns the file; `source` belongs to the caller. */
export class ChunkDictionary implements AsyncDisposable {
  readonly digest: Digest
  readonly #source: ImageSource
  readonly #manifest: Manifest
  readonly #file: TempFile

  private constructor(source: ImageSource, manifest: Manifest, { file, digest }: { file: TempFile; digest: Digest }) {
    this.#source = source
    this.#manifest = manifest
    this.#file = file
    this.digest = digest
  }

  /** The bootstrap's file. */
  get path(): string {
    return this.#file.path
  }

  /** Pulls the bootstrap into a file of `directory`. IMAGE_INVALID when `source` is no Nydus image of one platform. */
  static async pull(source: ImageSource, { directory, signal }: { directory: string; signal: AbortSignal }): Promise<ChunkDictionary> {
    const { descriptor, bytes } = await source.resolve({ signal })
    const manifest = isManifestType(descriptor.mediaType) ? parseManifest(bytes) : undefined
    const layer = manifest === undefined ? undefined : findBootstrapLayer(manifest)
    if (manifest === undefined || layer === undefined) throw new CodedError('IMAGE_INVALID', `chunk dictionary ${source.name} is not a Nydus image`)
    const bootstrap = await readBootstrap(source, layer, { diffId: undefined, signal })
    const file = await TempFile.create(directory)
    try {
      await file.append(bootstrap)
      return new ChunkDictionary(source, manifest, { file, digest: digestOf(bootstrap) })
    } catch (error) {
      await file[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Brings the blob called `id` to `target`. IMAGE_INVALID when the dictionary's image has no such layer. */
  async copyBlobTo(target: ImageTarget, id: string, { signal }: { signal: AbortSignal }): Promise<Descriptor> {
    const digest = sha256Digest(id)
    const descriptor = this.#manifest.layers.find((layer) => layer.digest === digest)
    if (descriptor === undefined) throw new CodedError('IMAGE_INVALID', `blob ${id} of the chunk dictionary is not in its image ${this.#source.name}`, { blobId: id })
    await copyBlob(this.#source, target, { descriptor, signal })
    return descriptor
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]()
  }
}

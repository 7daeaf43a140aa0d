// The blobs of an image in whatever place it is (registry, layout, archive), as storage reads them.

import { CodedError, isCoded, type ErrorCode } from '../core/errors.ts'
import type { Manifest } from '../format/oci/descriptor.ts'
import { sha256Digest } from '../format/oci/digest.ts'
import type { ImageSource } from '../registry/index.ts'
import type { BlobBackend, BlobReader } from '../storage/index.ts'

/** How a place's errors look to whoever reads blobs. Others pass as they are. */
const AS_STORAGE: Partial<Record<ErrorCode, ErrorCode>> = {
  REGISTRY_NOT_FOUND: 'STORAGE_NOT_FOUND',
  REGISTRY_DENIED: 'STORAGE_DENIED',
  REGISTRY_UNREACHABLE: 'STORAGE_UNREACHABLE',
  REGISTRY_DIGEST_MISMATCH: 'STORAGE_SHORT_READ',
  FORMAT_OUT_OF_RANGE: 'STORAGE_SHORT_READ',
}

/** Reads the layers of `manifest` from `source`. Owns `source`. A blob that is no layer of the manifest is STORAGE_NOT_FOUND. */
export class SourceBackend implements BlobBackend {
  readonly type = 'registry'
  readonly #source: ImageSource
  readonly #manifest: Manifest

  constructor(source: ImageSource, manifest: Manifest) {
    this.#source = source
    this.#manifest = manifest
  }

  open(blobId: string): BlobReader {
    const digest = sha256Digest(blobId)
    const layer = this.#manifest.layers.find((one) => one.digest === digest)
    const known = () => {
      if (layer === undefined) throw new CodedError('STORAGE_NOT_FOUND', `blob ${blobId} is no layer of ${this.#source.name}`, { blobId })
      return layer
    }
    return {
      size: async () => known().size,
      read: async (offset, length, { signal }) => {
        try {
          const bytes = Buffer.allocUnsafe(length)
          let at = 0
          for await (const piece of this.#source.openBlob(known(), { offset, length, signal })) at += Buffer.from(piece.buffer, piece.byteOffset, piece.length).copy(bytes, at)
          return bytes.subarray(0, at)
        } catch (error) {
          const code = isCoded(error) ? AS_STORAGE[error.code] : undefined
          if (code === undefined || !isCoded(error)) throw error
          throw new CodedError(code, error.message, error.context, { cause: error })
        }
      },
    }
  }

  async close(): Promise<void> {
    await this.#source[Symbol.asyncDispose]()
  }
}

// Blobs behind a range fetcher: the registry backend. The fetcher is passed in, because storage and registry are siblings that never meet.

import { CodedError, isCoded, type ErrorCode } from '../../core/errors.ts'
import { asDigest, type Digest } from '../../format/oci/digest.ts'
import type { BlobBackend, BlobReader } from './backend.ts'

/** What `createRangeFetcher` of src/registry returns, as far as it is used here. */
export interface RangeFetcher extends AsyncDisposable {
  readRange(digest: Digest, offset: number, options: { readonly length: number; readonly signal: AbortSignal }): Promise<Uint8Array>
  blobSize(digest: Digest, options: { readonly signal: AbortSignal }): Promise<number>
}

/** How a registry's errors look to whoever reads blobs. Others pass as they are. */
const AS_STORAGE: Partial<Record<ErrorCode, ErrorCode>> = {
  REGISTRY_NOT_FOUND: 'STORAGE_NOT_FOUND',
  REGISTRY_DENIED: 'STORAGE_DENIED',
  REGISTRY_UNREACHABLE: 'STORAGE_UNREACHABLE',
  REGISTRY_DIGEST_MISMATCH: 'STORAGE_SHORT_READ',
}

/** Owns `fetcher`. Blob ids are sha256 digests in hexadecimal. */
export class RangedBackend implements BlobBackend {
  readonly type = 'registry'
  readonly #fetcher: RangeFetcher

  constructor(fetcher: RangeFetcher) {
    this.#fetcher = fetcher
  }

  open(blobId: string): BlobReader {
    const digest = asDigest(`sha256:${blobId}`)
    return {
      size: (options) => this.#fetcher.blobSize(digest, options).catch(rethrow),
      read: (offset, length, { signal }) => this.#fetcher.readRange(digest, offset, { length, signal }).catch(rethrow),
    }
  }

  async close(): Promise<void> {
    await this.#fetcher[Symbol.asyncDispose]()
  }
}

function rethrow(error: unknown): never {
  const code = isCoded(error) ? AS_STORAGE[error.code] : undefined
  if (code === undefined || !isCoded(error)) throw error
  throw new CodedError(code, error.message, error.context, { cause: error })
}

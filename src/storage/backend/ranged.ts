// Blobs behind a range fetcher: the registry backend. The fetcher is passed in, because storage and registry are siblings that never meet.

import { asDigest, type Digest } from '../../format/oci/digest.ts'
import { rethrowAsStorage } from './as-storage.ts'
import type { BackendChange, BlobBackend, BlobReader, ReadOptions } from './backend.ts'

/** What `createRangeFetcher` of src/registry returns, as far as it is used here. */
export interface RangeFetcher extends AsyncDisposable {
  readRange(digest: Digest, offset: number, options: ReadOptions & { readonly length: number }): Promise<Uint8Array>
  blobSize(digest: Digest, options: { readonly signal: AbortSignal }): Promise<number>
  /** See BlobBackend.reconfigure. */
  reconfigure(change: BackendChange): void
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
      size: (options) => this.#fetcher.blobSize(digest, options).catch(rethrowAsStorage),
      read: (offset, length, options) => this.#fetcher.readRange(digest, offset, { ...options, length }).catch(rethrowAsStorage),
    }
  }

  reconfigure(change: BackendChange): void {
    this.#fetcher.reconfigure(change)
  }

  async close(): Promise<void> {
    await this.#fetcher[Symbol.asyncDispose]()
  }
}

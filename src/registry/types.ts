// What every place for images offers, whether registry, layout or archive. conformance: test/conformance/registry-places.test.ts.

import type { Descriptor } from '../format/oci/descriptor.ts'
import type { Digest } from '../format/oci/digest.ts'

export interface Signal { readonly signal: AbortSignal }

/** A manifest or index as it came; `descriptor` has its digest, size and media type. */
export interface Fetched { readonly descriptor: Descriptor; readonly bytes: Uint8Array }

/** Part of a blob: default all of it. Bytes. */
export interface BlobRange extends Signal { readonly offset?: number; readonly length?: number }

/** Where a blob may be mounted from: both ends at one registry. */
export interface RepositoryName { readonly host: string; readonly repository: string }

/** A place that one image is read from. Every method throws the REGISTRY_* codes; nothing it yields exceeds what a descriptor announced. */
export interface ImageSource extends AsyncDisposable {
  /** The reference or location as given, fit for messages. */
  readonly name: string
  /** Set for registries. */
  readonly repository: RepositoryName | undefined
  /** The image's own manifest or index, looked up once: a tag that moves later does not matter. REGISTRY_NOT_FOUND. */
  resolve(options: Signal): Promise<Fetched>
  /** A manifest that an index names, verified against its digest. REGISTRY_NOT_FOUND, REGISTRY_DIGEST_MISMATCH. */
  fetchManifest(digest: Digest, options: Signal): Promise<Fetched>
  /**
   * A blob's bytes. Whole blobs are verified: the iteration ends with REGISTRY_DIGEST_MISMATCH instead of normally when size or digest differ.
   * Ranges cannot be; their length is exact. Broken connections are resumed.
   */
  openBlob(descriptor: Descriptor, options: BlobRange): AsyncIterable<Uint8Array>
  exists(descriptor: Descriptor, options: Signal): Promise<boolean>
}

/** Makes the bytes of a known blob from `offset` on, `length` of them; called again for each attempt. */
export type BlobContent = (range: { readonly offset: number; readonly length: number; readonly signal: AbortSignal }) => AsyncIterable<Uint8Array>

export interface PushOptions extends Signal {
  /** Bytes that have arrived, after each piece; may go back when something is sent again. */
  readonly onProgress?: ((bytes: number) => void) | undefined
}

/** What `pushStream` learned at its end. */
export interface Pushed { readonly digest: Digest; readonly size: number }

/** A place that one image is written to. Blobs may be pushed in parallel. Nothing is visible under the target's name before `pushManifest` with `final`. */
export interface ImageTarget extends AsyncDisposable {
  readonly name: string
  readonly repository: RepositoryName | undefined
  hasBlob(descriptor: Descriptor, options: Signal): Promise<boolean>
  /** Takes over a blob of another repository at the same registry. False when that cannot be done: push it then. */
  mountBlob(descriptor: Descriptor, from: RepositoryName, options: Signal): Promise<boolean>
  /** A blob of known digest and size; does nothing when it is already there. REGISTRY_DIGEST_MISMATCH when the content is another. */
  pushBlob(descriptor: Pick<Descriptor, 'digest' | 'size'>, content: BlobContent, options: PushOptions): Promise<void>
  /** A blob that is still being made: digest and size are known at its end. */
  pushStream(content: AsyncIterable<Uint8Array>, options: PushOptions): Promise<Pushed>
  /** A manifest or index; with `final` the image itself, published under the target's name: last, after everything it names. */
  pushManifest(bytes: Uint8Array, options: Signal & { readonly mediaType: string; readonly final: boolean }): Promise<Descriptor>
  /** What is at the target's name now, or a manifest by digest; undefined when there is none. Archives are always empty. */
  fetchManifest(digest: Digest | undefined, options: Signal): Promise<Fetched | undefined>
  /** Completes the target (archives are renamed into place here). Disposing without it leaves the old image. */
  finish(options: Signal): Promise<void>
}

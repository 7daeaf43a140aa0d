// A repository at a registry as a source and a target of images.

import { CodedError } from '../../core/errors.ts'
import type { Descriptor } from '../../format/oci/descriptor.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { formatReference, manifestName, registryHost, withDefaultTag, type Reference } from '../../format/oci/reference.ts'
import type { BlobContent, BlobRange, Fetched, ImageSource, ImageTarget, Pushed, PushOptions, RepositoryName, Signal } from '../types.ts'
import { existsAt, fetchManifest, findManifest, openBlob } from './pull.ts'
import { mountBlob, pushBlob, pushManifest, pushStream, type UploadOptions } from './push.ts'
import { RegistryClient, type RegistryOptions } from './registry-client.ts'

/** Reads one image of a registry. */
export class RegistrySource implements ImageSource {
  readonly name: string
  readonly repository: RepositoryName
  readonly #reference: Reference
  readonly #client: RegistryClient
  #resolved: Fetched | undefined

  constructor(reference: Reference, options: RegistryOptions) {
    this.#reference = withDefaultTag(reference)
    this.name = formatReference(this.#reference)
    this.#client = clientFor(reference, { ...options, access: 'pull' })
    this.repository = repositoryOf(reference)
  }

  async resolve(options: Signal): Promise<Fetched> {
    return this.#resolved ??= await fetchManifest(this.#client, manifestName(this.#reference), options)
  }

  fetchManifest(digest: Digest, options: Signal): Promise<Fetched> {
    return fetchManifest(this.#client, digest, options)
  }

  openBlob(descriptor: Descriptor, options: BlobRange): AsyncIterable<Uint8Array> {
    return openBlob(this.#client, descriptor, options)
  }

  exists({ digest }: Descriptor, options: Signal): Promise<boolean> {
    return existsAt(this.#client, `blobs/${digest}`, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]()
  }
}

/** Writes one image to a registry. REGISTRY_BAD_REFERENCE for a reference by digest. */
export class RegistryTarget implements ImageTarget {
  readonly name: string
  readonly repository: RepositoryName
  readonly #tag: string
  readonly #client: RegistryClient
  readonly #upload: UploadOptions

  constructor(reference: Reference, options: RegistryOptions & UploadOptions) {
    const full = withDefaultTag(reference)
    this.name = formatReference(full)
    if (full.tag === undefined || full.digest !== undefined) throw new CodedError('REGISTRY_BAD_REFERENCE', `target ${this.name} has a digest: what is written decides its digest`)
    this.#tag = full.tag
    this.#client = clientFor(reference, { ...options, access: 'push' })
    this.#upload = options
    this.repository = repositoryOf(reference)
  }

  hasBlob({ digest }: Descriptor, options: Signal): Promise<boolean> {
    return existsAt(this.#client, `blobs/${digest}`, options)
  }

  async mountBlob({ digest }: Descriptor, from: RepositoryName, { signal }: Signal): Promise<boolean> {
    if (from.host !== this.repository.host || from.repository === this.repository.repository) return false
    return mountBlob(this.#client, digest, { from: from.repository, signal })
  }

  pushBlob(blob: Pick<Descriptor, 'digest' | 'size'>, content: BlobContent, options: PushOptions): Promise<void> {
    return pushBlob(this.#client, blob, { ...options, content, pieceSize: this.#upload.pieceSize })
  }

  pushStream(content: AsyncIterable<Uint8Array>, options: PushOptions): Promise<Pushed> {
    return pushStream(this.#client, content, { ...options, upload: this.#upload })
  }

  pushManifest(bytes: Uint8Array, { mediaType, final, signal }: Signal & { mediaType: string; final: boolean }): Promise<Descriptor> {
    return pushManifest(this.#client, bytes, { mediaType, tag: final ? this.#tag : undefined, signal })
  }

  fetchManifest(digest: Digest | undefined, options: Signal): Promise<Fetched | undefined> {
    return findManifest(this.#client, digest ?? this.#tag, options)
  }

  async finish({ signal }: Signal): Promise<void> {
    signal.throwIfAborted() // everything is already where it belongs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]()
  }
}

function clientFor(reference: Reference, options: RegistryOptions & { access: 'pull' | 'push' }): RegistryClient {
  return new RegistryClient({ host: registryHost(reference), credentialHost: reference.domain, repository: reference.path }, options)
}

function repositoryOf(reference: Reference): RepositoryName {
  return { host: registryHost(reference), repository: reference.path }
}

// Writes one image as a tar archive of an OCI layout; for `docker-archive:` with docker's manifest.json besides.
// Blobs arrive in parallel and of unknown size, a tar needs them one after the other and of known size: each waits in a nameless spool
// until it is whole, then joins the archive, which gets its name when everything is in it.

import path from 'node:path'
import { createHash } from 'node:crypto'
import { CodedError } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import { parseManifest, type Descriptor } from '../../format/oci/descriptor.ts'
import { splitDigest, type Digest } from '../../format/oci/digest.ts'
import { isManifestType, MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { familiarReference, parseReference } from '../../format/oci/reference.ts'
import { BLOCK_SIZE, seal, TYPE_FLAG, USTAR_MAGIC, ustarHeader } from '../../format/tar/header.ts'
import { checkManifestSize, digestOf, verified } from '../content.ts'
import { CONTAINERD_NAME, named, splitName } from '../layout/names.ts'
import { sweepTempFiles, TempFile } from '../layout/temp-file.ts'
import { Spool } from '../spool.ts'
import type { BlobContent, Fetched, ImageTarget, Pushed, PushOptions, Signal } from '../types.ts'

/** Two zero blocks end an archive; GNU tar pads to 10 KiB, which some readers expect. */
const RECORD_SIZE = 10 * KiB

export interface ArchiveTargetOptions {
  /** What the image is called inside the archive; for docker a full reference with a tag. */
  readonly imageName: string
  /** Add docker's manifest.json. */
  readonly docker: boolean
}

/** Owns the unfinished archive. */
export class ArchiveTarget implements ImageTarget {
  readonly name: string
  readonly repository = undefined
  readonly #file: string
  readonly #temp: TempFile
  readonly #options: ArchiveTargetOptions
  readonly #manifests = new Map<Digest, { bytes: Uint8Array; mediaType: string }>()
  readonly #written = new Set<Digest>()
  #image: Descriptor | undefined
  #queue: Promise<void> = Promise.resolve()

  private constructor(file: string, temp: TempFile, options: ArchiveTargetOptions) {
    this.name = file
    this.#file = file
    this.#temp = temp
    this.#options = options
  }

  /** REGISTRY_STORE when the directory of `file` cannot be written. */
  static async open(file: string, options: ArchiveTargetOptions): Promise<ArchiveTarget> {
    const target = path.resolve(file)
    await sweepTempFiles(path.dirname(target))
    return new ArchiveTarget(target, await TempFile.create(path.dirname(target)), options)
  }

  async hasBlob({ digest }: Descriptor, { signal }: Signal): Promise<boolean> {
    signal.throwIfAborted()
    return this.#written.has(digest)
  }

  async mountBlob(): Promise<boolean> {
    return false // a new archive has nothing to mount from
  }

  async pushBlob(blob: Pick<Descriptor, 'digest' | 'size'>, content: BlobContent, { signal, onProgress }: PushOptions): Promise<void> {
    if (this.#written.has(blob.digest)) return
    await using spool = await Spool.open(path.dirname(this.#file))
    for await (const chunk of verified(content({ offset: 0, length: blob.size, signal }), blob)) {
      signal.throwIfAborted()
      await spool.write(chunk)
      onProgress?.(spool.size)
    }
    await this.#appendBlob(blob.digest, spool)
  }

  async pushStream(content: AsyncIterable<Uint8Array>, { signal, onProgress }: PushOptions): Promise<Pushed> {
    await using spool = await Spool.open(path.dirname(this.#file))
    const hash = createHash('sha256')
    for await (const chunk of content) {
      signal.throwIfAborted()
      hash.update(chunk)
      await spool.write(chunk)
      onProgress?.(spool.size)
    }
    const digest: Digest = `sha256:${hash.digest('hex')}`
    await this.#appendBlob(digest, spool)
    return { digest, size: spool.size }
  }

  async pushManifest(bytes: Uint8Array, { mediaType, final, signal }: Signal & { mediaType: string; final: boolean }): Promise<Descriptor> {
    signal.throwIfAborted()
    checkManifestSize(bytes)
    const descriptor: Descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length }
    this.#manifests.set(descriptor.digest, { bytes, mediaType })
    await this.#enqueue(() => this.#append(blobName(descriptor.digest), bytes), descriptor.digest)
    if (final) this.#image = descriptor
    return descriptor
  }

  async fetchManifest(digest: Digest | undefined, { signal }: Signal): Promise<Fetched | undefined> {
    signal.throwIfAborted()
    const known = digest === undefined ? undefined : this.#manifests.get(digest)
    if (digest === undefined || known === undefined) return undefined
    return { descriptor: { mediaType: known.mediaType, digest, size: known.bytes.length }, bytes: known.bytes }
  }

  async finish({ signal }: Signal): Promise<void> {
    signal.throwIfAborted()
    await this.#queue
    if (this.#image === undefined) throw new CodedError('REGISTRY_STORE', `${this.#file}: no image was written to the archive`)
    const index = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: [this.#named(this.#image)] }
    await this.#append('index.json', Buffer.from(JSON.stringify(index)))
    await this.#append('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'))
    if (this.#options.docker) await this.#append('manifest.json', Buffer.from(JSON.stringify([this.#dockerManifest(this.#image)])))
    const end = this.#temp.size + 2 * BLOCK_SIZE
    await this.#temp.append(Buffer.alloc(Math.ceil(end / RECORD_SIZE) * RECORD_SIZE - this.#temp.size))
    await this.#temp.commit(this.#file)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#temp[Symbol.asyncDispose]()
  }

  #named(image: Descriptor): Descriptor {
    const { docker, imageName } = this.#options
    if (!docker) return named(image, imageName)
    const entry = named(image, splitName(imageName).tag)
    return { ...entry, annotations: { [CONTAINERD_NAME]: imageName, ...entry.annotations } }
  }

  /** docker load and podman read this file; both take OCI blobs as configs and layers. */
  #dockerManifest(image: Descriptor): object {
    if (!isManifestType(image.mediaType)) throw new CodedError('REGISTRY_STORE', `${this.#file}: a docker archive holds images of one platform; use oci-archive: for an index`)
    const { config, layers } = parseManifest(this.#manifests.get(image.digest)!.bytes)
    return { Config: blobName(config.digest), RepoTags: [familiarReference(parseReference(this.#options.imageName))], Layers: layers.map((layer) => blobName(layer.digest)) }
  }

  #appendBlob(digest: Digest, spool: Spool): Promise<void> {
    return this.#enqueue(async () => {
      await this.#temp.append(header(blobName(digest), spool.size))
      for await (const chunk of spool.read(0, spool.size)) await this.#temp.append(chunk)
      await this.#pad(spool.size)
    }, digest)
  }

  async #append(name: string, bytes: Uint8Array): Promise<void> {
    await this.#temp.append(header(name, bytes.length))
    await this.#temp.append(bytes)
    await this.#pad(bytes.length)
  }

  async #pad(size: number): Promise<void> {
    const rest = size % BLOCK_SIZE
    if (rest > 0) await this.#temp.append(Buffer.alloc(BLOCK_SIZE - rest))
  }

  /** One after the other, each digest once. A failure (a full disk) fails everything behind it: the archive has half a member. */
  #enqueue(write: () => Promise<void>, digest: Digest): Promise<void> {
    const turn = this.#queue.then(async () => {
      if (this.#written.has(digest)) return
      await write()
      this.#written.add(digest)
    })
    this.#queue = turn
    turn.catch(() => {}) // `finish` and the caller see it
    return turn
  }
}

function blobName(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest)
  return `blobs/${algorithm}/${hex}`
}

/** No clock, no user: identical images make identical archives. */
function header(name: string, size: number): Uint8Array {
  return seal(ustarHeader.encode({
    name, mode: 0o644, uid: 0, gid: 0, size, mtime: 0, checksum: new Uint8Array(8), typeFlag: TYPE_FLAG.file, linkName: '',
    magic: USTAR_MAGIC, version: '00', userName: '', groupName: '', devMajor: 0, devMinor: 0, prefix: '',
  }))
}

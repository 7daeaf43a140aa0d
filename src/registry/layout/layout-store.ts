// An OCI image layout on disk: content-addressed blobs and index.json. Blobs appear whole and verified, index.json is replaced under a lock,
// so any number of processes may read and write one layout. SPEC: opencontainers/image-spec image-layout.md.
//
//   DIR/oci-layout            also the file whose lock guards index.json
//   DIR/index.json            the images and their names (names.ts)
//   DIR/blobs/ALGORITHM/HEX
//   DIR/.nydus-tmp-UUID       blobs on their way

import { createHash, type Hash } from 'node:crypto'
import { link, mkdir, open, readFile, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { parseIndex, type Descriptor, type Index } from '../../format/oci/descriptor.ts'
import { asDigest, splitDigest, type Digest } from '../../format/oci/digest.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { mismatch, verified } from '../content.ts'
import { readSpan } from '../spool.ts'
import { storing } from '../store-error.ts'
import type { Pushed } from '../types.ts'
import { withFileLock } from './file-lock.ts'
import { replaceFile, sweepTempFiles, TempFile } from './temp-file.ts'

/** LIMIT: an index.json of 4096 entries is about 1 MiB. */
const MAX_INDEX_SIZE = 8 * MiB
const LAYOUT_FILE = `{"imageLayoutVersion":"1.0.0"}`

/** What the readers of layouts need: a directory has it, and so has a tar of one. */
export interface ReadableLayout extends AsyncDisposable {
  readonly path: string
  entries(): Promise<readonly Descriptor[]>
  /** Bytes of a blob, or undefined when it is not there. */
  blobSize(digest: Digest): Promise<number | undefined>
  /** Unverified bytes; ends early where the blob does. REGISTRY_NOT_FOUND. */
  read(digest: Digest, range: { readonly offset: number; readonly length: number }): AsyncIterable<Uint8Array>
}

/** A layout directory. Holds no descriptor between calls. */
export class LayoutStore implements ReadableLayout {
  readonly path: string

  private constructor(directory: string) {
    this.path = directory
  }

  /** REGISTRY_NOT_FOUND when there is none and `create` is not set; REGISTRY_STORE when it is not a layout or of another version. */
  static async open(directory: string, { create }: { readonly create: boolean }): Promise<LayoutStore> {
    const store = new LayoutStore(path.resolve(directory))
    if (create) {
      await storing(directory, () => store.#create())
      await sweepTempFiles(store.path)
    }
    const text = await readText(path.join(store.path, 'oci-layout'), 64 * 1024)
    if (text === undefined) throw new CodedError('REGISTRY_NOT_FOUND', `${directory} is no OCI layout (it has no file oci-layout)`, { directory })
    checkLayoutFile(text, directory)
    return store
  }

  async entries(): Promise<readonly Descriptor[]> {
    return (await this.#index()).manifests
  }

  /** Replaces the entries by what `change` makes of them, alone among all processes. */
  async update(change: (entries: readonly Descriptor[]) => readonly Descriptor[], { signal }: { signal: AbortSignal }): Promise<void> {
    await withFileLock(path.join(this.path, 'oci-layout'), { signal }, async () => {
      const index = await this.#index()
      const manifests = change(index.manifests)
      if (manifests === index.manifests) return
      await replaceFile(path.join(this.path, 'index.json'), Buffer.from(JSON.stringify({ ...index, manifests })))
    })
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return storing(digest, async () => {
      try {
        const found = await stat(this.#blobPath(digest))
        return found.isFile() ? found.size : undefined
      } catch (error) {
        if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined
        throw error
      }
    })
  }

  async *read(digest: Digest, range: { readonly offset: number; readonly length: number }): AsyncGenerator<Uint8Array, void, undefined> {
    const handle = await storing(digest, async () => {
      try {
        return await open(this.#blobPath(digest), 'r')
      } catch (error) {
        if (isSystemError(error, 'ENOENT', 'ENOTDIR')) throw new CodedError('REGISTRY_NOT_FOUND', `${this.path} has no blob ${digest}`, { digest })
        throw error
      }
    })
    try {
      yield* readSpan(handle, range)
    } finally {
      await handle.close()
    }
  }

  /** Whether the blob is there and hashes to its digest: what an earlier run left is believed only then. */
  async isIntact(blob: Pick<Descriptor, 'digest' | 'size'>): Promise<boolean> {
    if (await this.blobSize(blob.digest) !== blob.size) return false
    try {
      for await (const _ of verified(this.read(blob.digest, { offset: 0, length: blob.size }), blob));
      return true
    } catch (error) {
      if (error instanceof CodedError && (error.code === 'REGISTRY_DIGEST_MISMATCH' || error.code === 'REGISTRY_NOT_FOUND')) return false
      throw error
    }
  }

  /** A blob that arrives piece by piece. */
  async receive(): Promise<BlobWriter> {
    return new BlobWriter(await TempFile.create(this.path), (digest) => this.#blobPath(digest))
  }

  /** A whole blob at once (manifests, configs). */
  async put(bytes: Uint8Array): Promise<Pushed> {
    await using writer = await this.receive()
    await writer.write(bytes)
    return await writer.commit(undefined)
  }

  /** False when it was not there. */
  async remove(digest: Digest): Promise<boolean> {
    return storing(digest, async () => {
      try {
        await unlink(this.#blobPath(digest))
        return true
      } catch (error) {
        if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return false
        throw error
      }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** Digests come from strangers and become a path: `asDigest` leaves nothing but an algorithm and hex. */
  #blobPath(digest: Digest): string {
    const { algorithm, hex } = splitDigest(asDigest(digest))
    return path.join(this.path, 'blobs', algorithm, hex)
  }

  async #create(): Promise<void> {
    await mkdir(path.join(this.path, 'blobs', 'sha256'), { recursive: true })
    await createOnce(this.path, 'index.json', JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: [] }))
    await createOnce(this.path, 'oci-layout', LAYOUT_FILE)
  }

  async #index(): Promise<Index> {
    const text = await readText(path.join(this.path, 'index.json'), MAX_INDEX_SIZE)
    if (text === undefined) throw new CodedError('REGISTRY_STORE', `${this.path} has no index.json`, { directory: this.path })
    return parseIndex(text)
  }
}

/** Owns a blob on its way into a layout. Disposed without `commit`, nothing is left. */
export class BlobWriter implements AsyncDisposable {
  readonly #temp: TempFile
  readonly #pathOf: (digest: Digest) => string
  readonly #hash: Hash = createHash('sha256')

  constructor(temp: TempFile, pathOf: (digest: Digest) => string) {
    this.#temp = temp
    this.#pathOf = pathOf
  }

  get size(): number {
    return this.#temp.size
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk)
    await this.#temp.append(chunk)
  }

  /** Puts the blob in place. REGISTRY_DIGEST_MISMATCH when it is not `expected`; then it does not appear. */
  async commit(expected: Digest | undefined): Promise<Pushed> {
    const size = this.#temp.size
    const digest = expected === undefined || expected.startsWith('sha256:') ? asDigest(`sha256:${this.#hash.digest('hex')}`) : await this.#rehash(expected)
    if (expected !== undefined && digest !== expected) throw mismatch(`content of ${size} bytes`, expected, digest)
    const target = this.#pathOf(digest)
    await storing(target, () => mkdir(path.dirname(target), { recursive: true }))
    await this.#temp.commit(target)
    return { digest, size }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#temp[Symbol.asyncDispose]()
  }

  /** Another algorithm than the usual one is known only now. */
  async #rehash(expected: Digest): Promise<Digest> {
    const { algorithm } = splitDigest(expected)
    const hash = createHash(algorithm)
    for await (const chunk of readSpan(this.#temp.file, { offset: 0, length: this.#temp.size })) hash.update(chunk)
    return asDigest(`${algorithm}:${hash.digest('hex')}`)
  }
}

/** REGISTRY_STORE unless `text` says version 1. */
export function checkLayoutFile(text: string, where: string): void {
  let version: unknown
  try {
    const value: unknown = JSON.parse(text)
    version = typeof value === 'object' && value !== null && 'imageLayoutVersion' in value ? value.imageLayoutVersion : undefined
  } catch {
    version = undefined // not JSON: reported just as a missing version
  }
  if (typeof version !== 'string' || !version.startsWith('1.')) throw new CodedError('REGISTRY_STORE', `${where}: oci-layout does not say imageLayoutVersion 1.x`, { where })
}

/** Two that create the same layout at once leave one whole file. */
async function createOnce(directory: string, name: string, text: string): Promise<void> {
  await using temp = await TempFile.create(directory)
  await temp.append(Buffer.from(text))
  await temp.file.sync()
  try {
    await link(temp.path, path.join(directory, name))
  } catch (error) {
    if (!isSystemError(error, 'EEXIST')) throw error
  }
}

async function readText(file: string, limit: number): Promise<string | undefined> {
  return storing(file, async () => {
    try {
      const { size } = await stat(file)
      if (size > limit) throw new CodedError('REGISTRY_STORE', `${file} is larger than ${limit} bytes`, { size })
      return await readFile(file, 'utf8')
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined
      throw error
    }
  })
}

// Writing blobs and manifests to a registry.

import { createHash } from 'node:crypto'
import { hasCode } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import type { Descriptor } from '../../format/oci/descriptor.ts'
import type { Digest } from '../../format/oci/digest.ts'
import { checkManifestSize, digestOf, mismatch } from '../content.ts'
import { backoffMs, sleep } from '../http/retry.ts'
import { Spool } from '../spool.ts'
import type { BlobContent, Pushed, PushOptions, Signal } from '../types.ts'
import { existsAt } from './pull.ts'
import type { RegistryClient } from './registry-client.ts'
import { cancelUpload, closeUpload, openUpload, sendPiece, type Session } from './upload.ts'

/** LIMIT: what a broken connection costs at most to send again. Smaller blobs go in one request, which every registry takes. */
export const DEFAULT_PIECE_SIZE = 64 * MiB
/** LIMIT: a stream begins to travel once it has this much; object stores behind registries want parts of at least 5 MiB. */
export const STREAM_PIECE_SIZE = 16 * MiB

export interface UploadOptions {
  /** Bytes a PATCH; 0 sends every blob in one PUT. Default 64 MiB. */
  readonly pieceSize?: number | undefined
  /** Where streams are kept until the registry has them. */
  readonly spoolDirectory: string
}

/** A blob of known digest and size, unless it is already there. See ImageTarget.pushBlob. */
export async function pushBlob(client: RegistryClient, blob: Pick<Descriptor, 'digest' | 'size'>, { content, pieceSize = DEFAULT_PIECE_SIZE, signal, onProgress }: PushOptions & { content: BlobContent; pieceSize?: number | undefined }): Promise<void> {
  if (await existsAt(client, `blobs/${blob.digest}`, { signal })) {
    onProgress?.(blob.size)
    return
  }
  const body = (offset: number, length: number) => counted(content({ offset, length, signal }), { offset, length, digest: blob.digest, onProgress })
  if (pieceSize > 0 && blob.size > pieceSize && await inPieces(client, blob, { body, pieceSize, signal })) return
  await inOnePut(client, blob, { body: () => body(0, blob.size), signal })
}

/** A stream whose digest and size are known at its end. See ImageTarget.pushStream. */
export async function pushStream(client: RegistryClient, content: AsyncIterable<Uint8Array>, { upload, signal, onProgress }: PushOptions & { upload: UploadOptions }): Promise<Pushed> {
  await using spool = await Spool.open(upload.spoolDirectory)
  const hash = createHash('sha256')
  const uploader = new StreamUploader(client, spool, { pieces: upload.pieceSize !== 0, signal, onProgress })
  try {
    for await (const chunk of content) {
      signal.throwIfAborted()
      await spool.write(chunk)
      hash.update(chunk)
      uploader.poke()
    }
  } catch (error) {
    await uploader.abandon()
    throw error
  }
  const pushed: Pushed = { digest: `sha256:${hash.digest('hex')}`, size: spool.size }
  if (!await uploader.finish(pushed.digest)) {
    await pushBlob(client, pushed, { content: ({ offset, length }) => spool.read(offset, length), pieceSize: 0, signal, ...(onProgress ? { onProgress } : {}) })
  }
  return pushed
}

/** PUT of a manifest by tag or digest. REGISTRY_DIGEST_MISMATCH when the registry stored something else. */
export async function pushManifest(client: RegistryClient, bytes: Uint8Array, { mediaType, tag, signal }: Signal & { mediaType: string; tag: string | undefined }): Promise<Descriptor> {
  const digest = digestOf(bytes)
  checkManifestSize(bytes)
  const response = await client.call({ method: 'PUT', target: `manifests/${tag ?? digest}`, headers: { 'content-type': mediaType }, body: () => bytes, accept: [200, 201, 202], signal })
  await response.discard()
  const stored = response.header('docker-content-digest')
  if (stored !== undefined && stored !== digest) throw mismatch(`${client.address.host}/${client.address.repository}`, digest, stored)
  return { mediaType, digest, size: bytes.length }
}

/** True when mounted. A registry that answers 202 has opened an upload instead, which is given up. */
export async function mountBlob(client: RegistryClient, digest: Digest, { from, signal }: Signal & { from: string }): Promise<boolean> {
  let session: Session | undefined
  try {
    session = await openUpload(client, { mount: { digest, from }, signal })
  } catch (error) {
    // no pull right over there, or a registry that knows no mounts: an ordinary push will say what is really wrong
    if (hasCode(error, 'REGISTRY_DENIED') || hasCode(error, 'REGISTRY_NOT_FOUND') || hasCode(error, 'REGISTRY_PROTOCOL')) return false
    throw error
  }
  if (session === undefined) return true
  await cancelUpload(client, session, signal)
  return false
}

type Body = (offset: number, length: number) => AsyncIterable<Uint8Array>

async function inPieces(client: RegistryClient, { digest, size }: Pick<Descriptor, 'digest' | 'size'>, { body, pieceSize, signal }: { body: Body; pieceSize: number; signal: AbortSignal }): Promise<boolean> {
  const session = await openUpload(client, { signal })
  if (session === undefined) return true
  while (session.offset < size) {
    const start = session.offset
    const length = Math.min(pieceSize, size - start)
    if (!await sendPiece(client, session, { length, from: (skip) => body(start + skip, length - skip) }, signal)) {
      await cancelUpload(client, session, signal)
      return false
    }
  }
  await commit(client, session, { digest, signal })
  return true
}

/** Each attempt is a new session: a registry cannot be asked to forget half a PUT. */
async function inOnePut(client: RegistryClient, { digest, size }: Pick<Descriptor, 'digest' | 'size'>, { body, signal }: { body: () => AsyncIterable<Uint8Array>; signal: AbortSignal }): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const session = await openUpload(client, { signal })
    if (session === undefined) return
    try {
      await closeUpload(client, session, { digest, body: { length: size, make: body }, signal })
      return
    } catch (error) {
      if (!hasCode(error, 'REGISTRY_UNREACHABLE')) throw error
      // the answer was lost, not the blob
      if (await existsAt(client, `blobs/${digest}`, { signal })) return
      if (attempt >= client.retry.attempts) throw error
      await sleep(backoffMs(client.retry, attempt + 1), signal)
    }
  }
}

/** The PUT that ends a session of pieces. It may be repeated; the second may find the blob done and the session gone. */
async function commit(client: RegistryClient, session: Session, { digest, signal }: { digest: Digest; signal: AbortSignal }): Promise<void> {
  try {
    await closeUpload(client, session, { digest, signal })
  } catch (error) {
    const gone = hasCode(error, 'REGISTRY_NOT_FOUND') || hasCode(error, 'REGISTRY_UNREACHABLE')
    if (!gone || !await existsAt(client, `blobs/${digest}`, { signal })) throw error
  }
}

/** Sends a spool in pieces while it still grows, at most one piece at a time. */
class StreamUploader {
  readonly #client: RegistryClient
  readonly #spool: Spool
  readonly #signal: AbortSignal
  readonly #onProgress: ((bytes: number) => void) | undefined
  #session: Session | undefined
  #pieces: boolean
  #running: Promise<void> | undefined
  #failure: unknown

  constructor(client: RegistryClient, spool: Spool, { pieces, signal, onProgress }: PushOptions & { pieces: boolean }) {
    this.#client = client
    this.#spool = spool
    this.#pieces = pieces
    this.#signal = signal
    this.#onProgress = onProgress
  }

  /** The spool has grown. */
  poke(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (!this.#pieces || this.#running !== undefined) return
    if (this.#spool.size - (this.#session?.offset ?? 0) < STREAM_PIECE_SIZE) return
    this.#running = this.#send(STREAM_PIECE_SIZE).catch((error: unknown) => { this.#failure = error }).finally(() => { this.#running = undefined })
  }

  /** Sends the rest and commits; false when the whole spool still has to be sent in another way. */
  async finish(digest: Digest): Promise<boolean> {
    await this.#running
    if (this.#failure !== undefined) throw this.#failure
    if (this.#session === undefined) return false
    while (this.#pieces && this.#session.offset < this.#spool.size) await this.#send(Math.min(STREAM_PIECE_SIZE, this.#spool.size - this.#session.offset))
    if (!this.#pieces) return false
    await commit(this.#client, this.#session, { digest, signal: this.#signal })
    return true
  }

  /** After a failure of the content. */
  async abandon(): Promise<void> {
    await this.#running
    if (this.#session !== undefined && !this.#signal.aborted) await cancelUpload(this.#client, this.#session, this.#signal)
  }

  async #send(length: number): Promise<void> {
    const session = this.#session ??= await openUpload(this.#client, { signal: this.#signal })
    if (session === undefined) return
    const start = session.offset
    const piece = { length, from: (skip: number) => this.#spool.read(start + skip, length - skip) }
    if (await sendPiece(this.#client, session, piece, this.#signal)) {
      this.#onProgress?.(session.offset)
      return
    }
    this.#pieces = false
    await cancelUpload(this.#client, session, this.#signal)
  }
}

/** Reports what has gone, and refuses to send a body of another length than announced. */
async function* counted(content: AsyncIterable<Uint8Array>, { offset, length, digest, onProgress }: { offset: number; length: number; digest: Digest; onProgress: ((bytes: number) => void) | undefined }): AsyncGenerator<Uint8Array, void, undefined> {
  let sent = 0
  for await (const chunk of content) {
    sent += chunk.length
    if (sent > length) throw mismatch(digest, `${length} bytes at ${offset}`, 'more')
    yield chunk
    onProgress?.(offset + sent)
  }
  if (sent < length) throw mismatch(digest, `${length} bytes at ${offset}`, `${sent}`)
}

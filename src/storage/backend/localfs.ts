// Blobs as files: one file for all (`blob_file`), or `<dir>/<blob id>` with alternative directories.
// SPEC: spec-surface.md B.3 backend.localfs.

import { open, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { CodedError, isCoded } from '../../core/errors.ts'
import { errnoOf } from '../errno.ts'
import { newBuffer, type BlobBackend, type BlobReader } from './backend.ts'

export interface LocalfsOptions { readonly blobFile?: string; readonly dir?: string; readonly altDirs?: readonly string[] }

/** One open file per blob, shared by all its readers until `close`. */
export class LocalfsBackend implements BlobBackend {
  readonly type = 'localfs'
  readonly isLocal = true
  readonly #options: LocalfsOptions
  readonly #files = new Map<string, Promise<FileHandle>>()
  /** Files whose names are others' now: reads may still be under way in them, so they are closed at the end. As many as blobs were replaced. */
  readonly #replaced = new Set<FileHandle>()

  constructor(options: LocalfsOptions) {
    this.#options = options
  }

  open(blobId: string): BlobReader {
    return {
      size: async ({ signal }) => {
        signal.throwIfAborted()
        return (await this.#current(blobId)).size
      },
      read: async (offset, length, { signal, allocate = newBuffer }) => {
        signal.throwIfAborted()
        const { file, size } = await this.#current(blobId)
        // before allocating: `length` may come from a hostile bootstrap
        if (offset + length > size) throw shortRead(blobId, offset, length)
        const bytes = allocate(length)
        await readFully(file, bytes, { position: offset, blobId })
        signal.throwIfAborted()
        return bytes
      },
    }
  }

  async close(): Promise<void> {
    const files = [...this.#files.values()]
    this.#files.clear()
    for (const file of await Promise.allSettled(files)) if (file.status === 'fulfilled') await file.value.close()
    for (const file of this.#replaced) await file.close()
    this.#replaced.clear()
  }

  /** The blob's file and its size. One that was replaced by another is opened anew, so that a mended blob counts at once. */
  async #current(blobId: string): Promise<{ readonly file: FileHandle; readonly size: number }> {
    const opening = this.#file(blobId)
    const file = await opening
    const { size, nlink } = await file.stat()
    if (nlink > 0) return { file, size }
    if (this.#files.get(blobId) === opening) { // else another read was here before
      this.#replaced.add(file)
      // one that is gone can still be read
      this.#files.set(blobId, openFirst(candidates(this.#options, blobId), blobId).catch((error: unknown) => {
        if (isCoded(error)) return file
        throw error
      }))
    }
    const next = await this.#file(blobId)
    return { file: next, size: (await next.stat()).size }
  }

  #file(blobId: string): Promise<FileHandle> {
    const known = this.#files.get(blobId)
    if (known !== undefined) return known
    const opening = openFirst(candidates(this.#options, blobId), blobId)
    this.#files.set(blobId, opening)
    opening.catch(() => this.#files.delete(blobId)) // the blob may be put there later
    return opening
  }
}

function candidates({ blobFile, dir, altDirs = [] }: LocalfsOptions, blobId: string): string[] {
  if (blobFile) return [blobFile]
  if (blobId === '' || blobId === '.' || blobId === '..' || blobId.includes('/')) return []
  return [dir, ...altDirs].filter((folder) => folder !== undefined && folder !== '').map((folder) => path.join(folder!, blobId))
}

async function openFirst(paths: readonly string[], blobId: string): Promise<FileHandle> {
  for (const file of paths) {
    try {
      return await open(file, 'r')
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'ENOENT' || errno === 'ENOTDIR') continue
      const code = errno === 'EACCES' || errno === 'EPERM' ? 'STORAGE_DENIED' : 'STORAGE_UNREACHABLE'
      throw new CodedError(code, `cannot open blob ${blobId} at ${file}: ${errno}`, { blobId }, { cause: error })
    }
  }
  throw new CodedError('STORAGE_NOT_FOUND', `no file holds blob ${blobId}`, { blobId })
}

/** Fills `bytes` from `position` of `file`. STORAGE_SHORT_READ at its end, STORAGE_UNREACHABLE when it cannot be read. */
export async function readFully(file: FileHandle, bytes: Uint8Array, { position, blobId }: { readonly position: number; readonly blobId: string }): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, position + done).catch((error: unknown) => {
      throw new CodedError('STORAGE_UNREACHABLE', `cannot read blob ${blobId}: ${errnoOf(error)}`, { blobId, position }, { cause: error })
    })
    if (bytesRead === 0) throw shortRead(blobId, position, bytes.length)
    done += bytesRead
  }
}

/** The error for a range that leaves the blob. */
export function shortRead(blobId: string, offset: number, length: number): CodedError {
  return new CodedError('STORAGE_SHORT_READ', `blob ${blobId} ends before ${offset + length}`, { blobId, offset, length })
}

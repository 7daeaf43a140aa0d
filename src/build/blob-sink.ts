// Where the bytes of a blob go: a file, a FIFO, a directory of blobs, or whatever the caller has. Always written front to back.

import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { CodedError, foreignText } from '../core/errors.ts'

/** Takes the bytes of one blob in order. `write` and `commit` may wait; the bytes may change once `write` has resolved. */
export interface BlobSink {
  write(bytes: Uint8Array): Promise<void>
  /** The blob is complete and is called `blobId`; undefined when there is none (nothing was written). */
  commit(blobId: string | undefined): Promise<void>
  /** Gives up and removes what may be removed; after `commit` it does nothing. */
  abort(): Promise<void>
}

/** What a build with only metadata to say writes to. */
export const nowhere: BlobSink = {
  write: async () => {},
  commit: async () => {},
  abort: async () => {},
}

/**
 * A file or FIFO at `file`. It is opened at once, also when no byte will come: the reader of a FIFO waits for a writer. BUILD_OUTPUT.
 */
export async function fileSink(file: string): Promise<BlobSink> {
  const handle = await output(file, () => open(file, 'w', 0o644))
  return new FileSink(file, handle, async () => {})
}

/** A file in `directory` that gets its id as name when it is complete. Without data there is no file. BUILD_OUTPUT. */
export function directorySink(directory: string): BlobSink {
  const temporary = path.join(directory, `.${randomUUID()}.partial`)
  let sink: FileSink | undefined
  return {
    async write(bytes) {
      sink ??= new FileSink(temporary, await output(temporary, () => open(temporary, 'wx', 0o644)), () => rm(temporary, { force: true }))
      await sink.write(bytes)
    },
    async commit(blobId) {
      if (sink === undefined) return
      await sink.commit()
      if (blobId === undefined) await rm(temporary, { force: true })
      else await output(temporary, () => rename(temporary, path.join(directory, blobId)))
    },
    async abort() {
      await sink?.abort()
    },
  }
}

class FileSink implements BlobSink {
  readonly #file: string
  readonly #remove: () => Promise<void>
  #handle: FileHandle | undefined

  constructor(file: string, handle: FileHandle, remove: () => Promise<void>) {
    this.#file = file
    this.#handle = handle
    this.#remove = remove
  }

  async write(bytes: Uint8Array): Promise<void> {
    // Sequential writes without a position: a FIFO knows none. A single call may write less.
    await output(this.#file, async () => {
      for (let at = 0; at < bytes.length;) at += (await this.#handle!.write(bytes, at, bytes.length - at)).bytesWritten
    })
  }

  async commit(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await output(this.#file, async () => handle?.close())
  }

  async abort(): Promise<void> {
    if (this.#handle === undefined) return
    const handle = this.#handle
    this.#handle = undefined
    await handle.close()
    await this.#remove()
  }
}

async function output<T>(file: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (cause) {
    throw new CodedError('BUILD_OUTPUT', `cannot write ${file}: ${foreignText(cause instanceof Error ? cause.message : String(cause))}`, { file }, { cause })
  }
}

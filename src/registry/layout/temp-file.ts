// A file that becomes visible whole or not at all. While it is being written its owner holds a lock on it, so whoever finds an unlocked
// one knows that its owner died, whatever namespace or boot that was in, and removes it.

import { randomUUID } from 'node:crypto'
import { open, readdir, rename, unlink, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { isSystemError } from '../../core/errors.ts'
import { storing } from '../store-error.ts'
import { TEMP_PREFIX, writeAll } from '../spool.ts'
import { tryLock } from './file-lock.ts'

/** Owns descriptor, lock and name until `commit`; disposed without it, the file is gone. */
export class TempFile implements AsyncDisposable {
  readonly file: FileHandle
  readonly path: string
  #size = 0
  #committed = false

  private constructor(file: FileHandle, name: string) {
    this.file = file
    this.path = name
  }

  /** A new file in `directory`, which decides the file system that `commit` renames within. REGISTRY_STORE. */
  static async create(directory: string): Promise<TempFile> {
    return storing(`temporary file in ${directory}`, async () => {
      for (;;) {
        const name = path.join(directory, `${TEMP_PREFIX}${randomUUID()}`)
        const file = await open(name, 'wx+', 0o644)
        // a sweeper may have come between open and lock: then the name is gone, or about to go
        if (tryLock(file.fd, name) && (await file.stat()).nlink === 1) return new TempFile(file, name)
        await file.close()
      }
    })
  }

  get size(): number {
    return this.#size
  }

  async append(chunk: Uint8Array): Promise<void> {
    await storing(this.path, () => writeAll(this.file, chunk, this.#size))
    this.#size += chunk.length
  }

  /** Makes it durable, then visible as `target`, replacing what was there. */
  async commit(target: string): Promise<void> {
    await storing(target, async () => {
      // 1. content, 2. name, 3. directory: after a power cut there is the old file or the new one
      await this.file.sync()
      await rename(this.path, target)
      this.#committed = true
      await syncDirectory(path.dirname(target))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#committed) await unlinkIfPresent(this.path)
    await this.file.close()
  }
}

/** Replaces `target` by `bytes`, atomically. */
export async function replaceFile(target: string, bytes: Uint8Array): Promise<void> {
  await using temp = await TempFile.create(path.dirname(target))
  await temp.append(bytes)
  await temp.commit(target)
}

/** Removes the temporary files of processes that died. Others' files that are in use stay. Never fails: it is only tidiness. */
export async function sweepTempFiles(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => [])
  for (const name of names) {
    if (!name.startsWith(TEMP_PREFIX)) continue
    const file = path.join(directory, name)
    try {
      const handle = await open(file, 'r')
      try {
        if (tryLock(handle.fd, file)) await unlinkIfPresent(file)
      } finally {
        await handle.close()
      }
    } catch {
      // renamed or removed in between, or not ours
    }
  }
}

async function unlinkIfPresent(file: string): Promise<void> {
  try {
    await unlink(file)
  } catch (error) {
    if (!isSystemError(error, 'ENOENT')) throw error
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

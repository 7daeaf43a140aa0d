// The writes and syncs of a cache, behind an interface: tests record them, replay them to every prefix and let them fail.

import { fdatasync, read, write, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'

const writeLater = promisify(write)
const readLater = promisify(read)
const syncLater = promisify(fdatasync)

/** LIMIT: threads of Node's pool (four) that may wait for a disk at a time: chunks are decoded on the others, and readers wait for those. */
const MAX_SYNCS = 2
let syncs = 0
const waiting: (() => void)[] = []

/** fdatasync(2), in turn. */
export async function syncInTurn(fd: number): Promise<void> {
  while (syncs >= MAX_SYNCS) await new Promise<void>((resolve) => waiting.push(resolve))
  syncs++
  try {
    await syncLater(fd)
  } finally {
    syncs--
    waiting.shift()?.()
  }
}

export interface CacheIo {
  /** All of `bytes` into the cache file. */
  write(fd: number, bytes: Uint8Array, position: number): Promise<void>
  /** Everything written to the cache file before is on the disk when it resolves. */
  sync(fd: number): Promise<void>
  /** All of `bytes` into the chunk map. */
  writeMap(fd: number, bytes: Uint8Array, position: number): void
  /** Names that were given in `directory` before are on the disk when it resolves. */
  syncDirectory(directory: string): Promise<void>
}

/** The real thing. */
export const fileIo: CacheIo = {
  async write(fd, bytes, position) {
    for (let done = 0; done < bytes.length;) done += (await writeLater(fd, bytes, done, bytes.length - done, position + done)).bytesWritten
  },
  sync: syncInTurn,
  writeMap(fd, bytes, position) {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done)
  },
  async syncDirectory(directory) {
    const handle = await open(directory, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
}

/** Fills `target` from `position`; the number of bytes that were there. */
export async function readAvailable(fd: number, target: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < target.length) {
    const { bytesRead } = await readLater(fd, target, done, target.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

// A disk that loses its power: what a cache does to its files is recorded, and replayed as a disk may hold it after a crash at any moment: what was
// synced is there, and of what was not, any subset of pages is.

import { mkdirSync, readlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileIo, type CacheIo } from '../../src/storage/cache/io.ts'

const PAGE = 4096

type Operation =
  | { readonly kind: 'write'; readonly file: string; readonly at: number; readonly bytes: Uint8Array }
  /** Everything of `file` that was recorded before operation `since` is on the disk. */
  | { readonly kind: 'sync'; readonly file: string; readonly since: number }
  | { readonly kind: 'names'; readonly since: number }
  | { readonly kind: 'mark'; readonly note: string }

/** The files of a cache directory after the power came back; a file that is not there has lost its name. */
export type DiskImage = ReadonlyMap<string, Uint8Array>

/** Records through `io`; one at a time. */
export class RecordedDisk {
  readonly operations: Operation[] = []
  readonly #sizes = new Map<string, number>()
  readonly io: CacheIo = {
    write: async (fd, bytes, position) => {
      await fileIo.write(fd, bytes, position)
      this.#write(fd, bytes, position)
    },
    sync: async (fd) => {
      const since = this.operations.length
      await fileIo.sync(fd)
      this.operations.push({ kind: 'sync', file: nameOf(fd), since })
    },
    writeMap: (fd, bytes, position) => {
      fileIo.writeMap(fd, bytes, position)
      this.#write(fd, bytes, position)
    },
    syncDirectory: async (directory) => {
      const since = this.operations.length
      await fileIo.syncDirectory(directory)
      this.operations.push({ kind: 'names', since })
    },
  }

  /** Remembers that `note` was promised at this point. */
  mark(note: string): void {
    this.operations.push({ kind: 'mark', note })
  }

  /** Promises before operation `count`. */
  promises(count: number): string[] {
    return this.operations.slice(0, count).flatMap((operation) => (operation.kind === 'mark' ? [operation.note] : []))
  }

  /** `size`: of the file `name`, which is made before anything is recorded. */
  expectSize(name: string, size: number): void {
    this.#sizes.set(name, size)
  }

  /** The disk when the power goes after `count` operations; `keeps` decides for each page that was not synced. */
  crash(count: number, keeps: () => boolean): DiskImage {
    const done = this.operations.slice(0, count)
    const named = done.some(({ kind }) => kind === 'names')
    const files = new Map<string, Uint8Array>()
    for (const [name, size] of this.#sizes) {
      const syncs = done.flatMap((operation) => (operation.kind === 'sync' && operation.file === name ? [operation.since] : []))
      const durableBefore = Math.max(-1, ...syncs)
      if (!named && !keeps()) continue
      const bytes = new Uint8Array(syncs.length > 0 || keeps() ? size : 0)
      for (const [i, operation] of done.entries()) {
        if (operation.kind !== 'write' || operation.file !== name) continue
        for (let from = 0; from < operation.bytes.length;) {
          const end = Math.min(operation.bytes.length, from + PAGE - ((operation.at + from) % PAGE))
          if ((i < durableBefore || keeps()) && operation.at + end <= bytes.length) bytes.set(operation.bytes.subarray(from, end), operation.at + from)
          from = end
        }
      }
      files.set(name, bytes)
    }
    return files
  }

  #write(fd: number, bytes: Uint8Array, at: number): void {
    this.operations.push({ kind: 'write', file: nameOf(fd), at, bytes: new Uint8Array(bytes) }) // a copy: buffers are used again
  }
}

export function restore(image: DiskImage, directory: string): void {
  mkdirSync(directory, { recursive: true })
  for (const [name, bytes] of image) writeFileSync(path.join(directory, name), bytes)
}

function nameOf(fd: number): string {
  return path.basename(readlinkSync(`/proc/self/fd/${fd}`))
}

// A nameless file that holds a stream until it has arrived elsewhere. It is unlinked as soon as it is open; what a kill -9 between the two leaves
// has a temporary file's name, which the next writer sweeps.

import { randomUUID } from 'node:crypto'
import { mkdir, open, rm, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { KiB } from '../core/units.ts'
import { storing } from './store-error.ts'

/** LIMIT: large enough that a disk is read in few calls, small enough for many uploads at once. */
const READ_SIZE = 256 * KiB

/** How files begin that nobody needs once their owner is gone: `sweepTempFiles` removes them. */
export const TEMP_PREFIX = '.nydus-tmp-'

/** Owns the descriptor. Written at its end, read anywhere, also at the same time. */
export class Spool implements AsyncDisposable {
  readonly #file: FileHandle
  #size = 0

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** REGISTRY_STORE when `directory` cannot be written. */
  static async open(directory: string): Promise<Spool> {
    return storing(`spool in ${directory}`, async () => {
      await mkdir(directory, { recursive: true })
      const name = path.join(directory, `${TEMP_PREFIX}${randomUUID()}`)
      const file = await open(name, 'wx+', 0o600)
      await rm(name, { force: true }) // a sweeper may have been quicker
      return new Spool(file)
    })
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size
  }

  async write(chunk: Uint8Array): Promise<void> {
    await storing('spool', () => writeAll(this.#file, chunk, this.#size))
    this.#size += chunk.length
  }

  /** Bytes offset … offset+length; ends early where the file does. */
  read(offset: number, length: number): AsyncGenerator<Uint8Array, void, undefined> {
    return readSpan(this.#file, { offset, length })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/** All of `chunk` at `position`: one write may be short. */
export async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    done += (await file.write(chunk, done, chunk.length - done, position + done)).bytesWritten
  }
}

/** Bytes of an open file; ends early where the file does. Each piece is a buffer of its own. */
export async function* readSpan(file: FileHandle, { offset, length }: { offset: number; length: number }): AsyncGenerator<Uint8Array, void, undefined> {
  for (let position = offset; position < offset + length; ) {
    const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, offset + length - position))
    const { bytesRead } = await storing('read', () => file.read(buffer, 0, buffer.length, position))
    if (bytesRead === 0) return
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

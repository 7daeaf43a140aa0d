// Writes a disk image, leaving holes where it is zero.

import { ftruncateSync, write } from 'node:fs'
import { promisify } from 'node:util'
import { CodedError } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'

const writeLater = promisify(write)

/** LIMIT: shorter stretches of zeros are written: a hole costs the file system an extent. A multiple of the block size. */
const MIN_HOLE = 16 * KiB
const ZEROS = Buffer.alloc(MIN_HOLE)

/** A file that is all zeros at first. */
export class SparseFile {
  readonly fd: number
  readonly #keepsZeros: boolean

  /** `keepsZeros`: what was on `fd` before is no longer there, so that zeros need not be written. */
  constructor(fd: number, { keepsZeros }: { readonly keepsZeros: boolean }) {
    this.fd = fd
    this.#keepsZeros = keepsZeros
  }

  /** BUILD_OUTPUT. */
  setSize(size: number): void {
    if (this.#keepsZeros) outputErrors(() => ftruncateSync(this.fd, size))
  }

  /** `offset` is a multiple of the block size. BUILD_OUTPUT. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    if (!this.#keepsZeros) return await this.#writeAll(bytes, offset)
    let from = 0
    for (let at = 0; at < bytes.length; at += MIN_HOLE) {
      const end = Math.min(at + MIN_HOLE, bytes.length)
      if (!isZero(bytes.subarray(at, end))) continue
      if (from < at) await this.#writeAll(bytes.subarray(from, at), offset + from)
      from = end
    }
    if (from < bytes.length) await this.#writeAll(bytes.subarray(from), offset + from)
  }

  /** Zeros where nothing else is written. BUILD_OUTPUT. */
  async clear(offset: number, end: number): Promise<void> {
    if (this.#keepsZeros) return
    for (let at = offset; at < end; at += MIN_HOLE) await this.#writeAll(ZEROS.subarray(0, Math.min(MIN_HOLE, end - at)), at)
  }

  async #writeAll(bytes: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      try {
        done += (await writeLater(this.fd, bytes, done, bytes.length - done, offset + done)).bytesWritten
      } catch (error) {
        throw outputError(error)
      }
    }
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes[0] === 0 && ZEROS.compare(bytes, 0, bytes.length, 0, bytes.length) === 0
}

function outputErrors(action: () => void): void {
  try {
    action()
  } catch (error) {
    throw outputError(error)
  }
}

function outputError(error: unknown): CodedError {
  return new CodedError('BUILD_OUTPUT', `cannot write the disk: ${error instanceof Error ? error.message : String(error)}`, {}, { cause: error })
}

// Which parts of which files one bulk read brings, in the form in which the addon takes it.

import { toText, byteString } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { errnoName } from '../native/errno.ts'
import { native } from '../native/load.ts'

const INITIAL_PATHS = 64 * 1024

/** Files to be read in one crossing into the addon, with where their bytes go. */
export class ReadList {
  /** Paths with a NUL behind each. */
  #paths = Buffer.allocUnsafeSlow(0)
  #pathsUsed = 0
  /** [file offset, length, offset in the buffer] a part. */
  readonly #ranges: Float64Array
  readonly #results: Int32Array
  #count = 0

  /** `limit`: parts that there will be at most. */
  constructor(limit: number) {
    this.#ranges = new Float64Array(3 * limit)
    this.#results = new Int32Array(limit)
  }

  /** Adds a part of the file at `directory` + `name` (byte strings). */
  add(directory: string, name: string, { offset, length, at }: { readonly offset: number; readonly length: number; readonly at: number }): void {
    const needed = this.#pathsUsed + directory.length + name.length + 1
    if (needed > this.#paths.length) this.#grow(needed)
    this.#pathsUsed += this.#paths.write(directory, this.#pathsUsed, 'latin1')
    this.#pathsUsed += this.#paths.write(name, this.#pathsUsed, 'latin1')
    this.#paths[this.#pathsUsed++] = 0
    this.#ranges.set([offset, length, at], 3 * this.#count++)
  }

  /** Makes the last part longer: the next chunk of the same file. */
  extend(length: number): void {
    this.#ranges[3 * (this.#count - 1) + 1]! += length
  }

  /** Reads all parts into `buffer`. BUILD_SOURCE for a file that cannot be read, or has become shorter. */
  async read(buffer: Uint8Array): Promise<void> {
    const count = this.#count
    if (count === 0) return
    await native().readFiles(this.#paths.subarray(0, this.#pathsUsed), this.#ranges.subarray(0, 3 * count), buffer, this.#results.subarray(0, count))
    for (let i = 0; i < count; i++) if (this.#results[i] !== this.#ranges[3 * i + 1]) throw this.#failure(i)
  }

  reset(): void {
    this.#count = 0
    this.#pathsUsed = 0
  }

  #grow(needed: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#paths.length * 2, INITIAL_PATHS))
    larger.set(this.#paths.subarray(0, this.#pathsUsed))
    this.#paths = larger
  }

  #failure(part: number): CodedError {
    const path = toText(byteString(this.#paths.subarray(0, this.#pathsUsed)).split('\0')[part]!)
    const got = this.#results[part]!
    const why = got < 0 ? errnoName(got) : `it became shorter while it was read (${got} of ${this.#ranges[3 * part + 1]} bytes)`
    return new CodedError('BUILD_SOURCE', `cannot read ${path}: ${why}`, { path })
  }
}

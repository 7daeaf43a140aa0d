// gzip and zstd streams, decoded in steps on libuv's thread pool, one step ahead of the reader.

import { CodedError } from '../core/errors.ts'
import { abortable } from '../core/single-flight.ts'
import { KiB } from '../core/units.ts'
import { COMPRESSOR } from './codecs.ts'
import { native } from './load.ts'

export interface DecompressOptions {
  /** Ends the stream at its next step, or while it waits for the source. */
  readonly signal: AbortSignal
  /** Largest piece in bytes. Default 512 KiB. Memory in use: two pieces and one of the source's. */
  readonly highWater?: number
  /** The reader is done with a piece when it asks for the next one: two buffers serve the whole stream, and nothing is left to the collector. */
  readonly reuseBuffers?: boolean
  /** zstd: base-2 logarithm of the largest window accepted. Default 27 (128 MiB). */
  readonly windowLogMax?: number
}

/** LIMIT: large enough that a step (1 ms) outweighs its two thread hops (30 µs), small enough to stay in the second-level cache. */
const DEFAULT_HIGH_WATER = 512 * KiB

/**
 * The decoded bytes of a gzip stream (members back to back, zero padding at the end) or a zstd stream (frames back to back, skippable frames) in
 * pieces of 1 to `highWater` bytes, each in a buffer of its own that the reader may keep (unless `reuseBuffers`).
 * @throws CodedError CODEC_CORRUPT on damage, on an end inside a member ("truncated") and on a window that is too large; the signal's reason; what the source throws.
 */
export async function* decompressStream(
  source: AsyncIterable<Uint8Array>, kind: 'gzip' | 'zstd', { signal, highWater = DEFAULT_HIGH_WATER, windowLogMax, reuseBuffers = false }: DecompressOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decoder = native().streamOpen(COMPRESSOR[kind], windowLogMax)
  const pieces = new PieceReader(source[Symbol.asyncIterator](), decoder, kind, { signal, highWater, reuseBuffers })
  let next: Promise<Uint8Array | undefined> | undefined
  try {
    for (;;) {
      const piece: Uint8Array | undefined = await (next ?? pieces.next())
      if (piece === undefined) return
      next = pieces.next()
      next.catch(() => {}) // reported by the await above, unless the reader leaves before
      yield piece
    }
  } finally {
    native().streamClose(decoder) // waits for a running step by itself
    await pieces.closeSource()
  }
}

class PieceReader {
  readonly #source: AsyncIterator<Uint8Array>
  readonly #decoder: object
  readonly #kind: string
  readonly #signal: AbortSignal
  readonly #highWater: number
  readonly #result = new Int32Array(3)
  /** One is read while the other is filled. */
  readonly #buffers: [Buffer, Buffer] | undefined
  #input: Uint8Array = new Uint8Array(0)
  #state = 0
  #mayHoldMore = false
  #reading = false
  #sourceEnded = false

  constructor(source: AsyncIterator<Uint8Array>, decoder: object, kind: string, { signal, highWater, reuseBuffers }: { signal: AbortSignal; highWater: number; reuseBuffers: boolean }) {
    this.#source = source
    this.#decoder = decoder
    this.#kind = kind
    this.#signal = signal
    this.#highWater = highWater
    this.#buffers = reuseBuffers ? [Buffer.allocUnsafeSlow(highWater), Buffer.allocUnsafeSlow(highWater)] : undefined
  }

  /** The next piece, or undefined at a valid end. */
  async next(): Promise<Uint8Array | undefined> {
    this.#buffers?.reverse()
    const output = this.#buffers?.[0] ?? Buffer.allocUnsafeSlow(this.#highWater)
    let filled = 0
    while (filled < output.length) {
      this.#signal.throwIfAborted()
      if (this.#input.length === 0 && !this.#mayHoldMore && !(await this.#readOn())) {
        if (filled === 0 && this.#state !== 1) throw this.#corrupt('is truncated: it ends inside a member')
        break
      }
      await native().streamStep(this.#decoder, this.#input, output.subarray(filled), this.#result)
      const [consumed = 0, produced = 0, state = 0] = this.#result
      if (state === -1) throw this.#corrupt('is corrupt')
      if (state === -2) throw this.#corrupt('needs more memory than is allowed')
      if (consumed === 0 && produced === 0 && this.#input.length > 0) throw this.#corrupt('makes no progress')
      this.#state = state
      this.#input = this.#input.subarray(consumed)
      filled += produced
      this.#mayHoldMore = filled === output.length
    }
    return filled === 0 ? undefined : output.subarray(0, filled)
  }

  /** Ends the source, unless it is at its end or still busy with a read that nobody waits for. */
  async closeSource(): Promise<void> {
    if (this.#sourceEnded) return
    const closed = this.#source.return?.()
    if (!this.#reading) await closed
    else closed?.catch(() => {})
  }

  async #readOn(): Promise<boolean> {
    if (this.#sourceEnded) return false
    this.#reading = true
    const { value, done } = await abortable(this.#source.next(), this.#signal)
    this.#reading = false
    this.#sourceEnded = done === true
    if (done !== true) this.#input = value
    return !this.#sourceEnded
  }

  #corrupt(what: string): CodedError {
    return new CodedError('CODEC_CORRUPT', `${this.#kind} stream ${what}`, { kind: this.#kind })
  }
}

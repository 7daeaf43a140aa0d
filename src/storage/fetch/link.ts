// What a round trip costs on the way to one backend, learned from the ranges that are read anyway.

import { KiB, MiB } from '../../core/units.ts'

export interface Transfer {
  readonly bytes: number
  /** From the request to the first byte. */
  readonly firstByteMs: number
  /** From the request to the last byte. */
  readonly durationMs: number
}

/** LIMIT: what is believed before the first answer: a registry in the same country. */
const FIRST_ROUND_TRIP_MS = 20
const FIRST_BYTES_PER_MS = 20 * KiB
/** Weight of the newest measurement: a change shows after a few requests, one hiccup does not. */
const NEWEST = 0.25
/** LIMIT: shorter transfers than this say nothing of bandwidth: they fit into what TCP sends unasked. */
const MIN_BYTES = 64 * KiB
/** LIMIT: a gap in the blob that is read rather than skipped. A round trip on a fast line may cost more bytes, but nobody asked for these. */
const MIN_GAP = 16 * KiB
const MAX_GAP = 256 * KiB

/** Running estimates of round trip and bandwidth. */
export class LinkEstimate {
  #roundTripMs = FIRST_ROUND_TRIP_MS
  #bytesPerMs = FIRST_BYTES_PER_MS
  #measured = false

  /** Milliseconds from a request to its first byte: the way there and back, and the server's work. */
  get roundTripMs(): number {
    return this.#roundTripMs
  }

  /** Of one connection. */
  get bytesPerMs(): number {
    return this.#bytesPerMs
  }

  /** Bytes that arrive while a request is under way: as many as it costs to ask once more. */
  get roundTripBytes(): number {
    return this.#roundTripMs * this.#bytesPerMs
  }

  /** Bytes between two chunks that are read rather than skipped. */
  get gap(): number {
    return Math.min(MAX_GAP, Math.max(MIN_GAP, this.roundTripBytes / 4))
  }

  /** Bytes under way at once that fill the line: two round trips of it, so that it never runs dry between two answers. */
  get fullLine(): number {
    return Math.max(MiB, 2 * this.roundTripBytes)
  }

  record({ bytes, firstByteMs, durationMs }: Transfer): void {
    const weight = this.#measured ? NEWEST : 1
    this.#measured = true
    this.#roundTripMs += (Math.max(0.05, firstByteMs) - this.#roundTripMs) * weight
    if (bytes < MIN_BYTES) return
    const rate = bytes / Math.max(0.05, durationMs - firstByteMs)
    this.#bytesPerMs += (rate - this.#bytesPerMs) * NEWEST
  }
}

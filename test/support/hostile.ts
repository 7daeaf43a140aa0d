// What every reader of foreign bytes must survive: each truncation, and random bytes. Only coded errors may come out.

import { isCoded } from '../../src/core/errors.ts'

/** Deterministic 32-bit generator (mulberry32): a failing seed can be run again. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let word = Math.imul(state ^ (state >>> 15), state | 1)
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61)
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32
  }
}

/** An integer below `limit`. */
export function below(random: () => number, limit: number): number {
  return Math.floor(random() * limit)
}

/** Whether `run` succeeds; a coded error is a failure that is expected, anything else is rethrown with `what` in front. */
export function survives(run: () => unknown, what: string): boolean {
  try {
    run()
    return true
  } catch (error) {
    if (isCoded(error)) return false
    throw new Error(`${what}: ${error instanceof Error ? error.stack : String(error)}`, { cause: error })
  }
}

/** Reads every prefix of `bytes`, and `rounds` buffers of random bytes of its size; all but `accepted` prefixes must be refused with a coded error. */
export function readHostile(read: (bytes: Uint8Array) => unknown, bytes: Uint8Array, { rounds = 200, seed = 1 }: { rounds?: number; seed?: number } = {}): { acceptedPrefixes: number } {
  let acceptedPrefixes = 0
  for (let length = 0; length < bytes.length; length++) if (survives(() => read(bytes.subarray(0, length)), `prefix of ${length}`)) acceptedPrefixes++
  const random = randomOf(seed)
  for (let round = 0; round < rounds; round++) {
    const noise = Uint8Array.from(bytes, () => below(random, 256))
    survives(() => read(noise), `noise ${round}`)
  }
  return { acceptedPrefixes }
}

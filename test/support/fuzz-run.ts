// How every fuzzer of test/fuzz runs: for FUZZ_SECONDS, from FUZZ_SEED, with its rate of inputs that come past the first checks printed.

import { expect } from 'vitest'
import { isCoded } from '../../src/core/errors.ts'
import { MiB } from '../../src/core/units.ts'
import { randomOf } from './hostile.ts'

const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 3)
/** LIMIT: what a test may take: its rounds, and a slow machine. */
export const FUZZ_TIMEOUT = 60_000 + SECONDS * 1000
/** LIMIT: one round takes milliseconds; this is a hang on a machine that does other things too. */
const SLOW_MS = 5000
/** LIMIT: growth of the process, garbage included: what is believed of a claim of terabytes shows at once. */
const GROWTH = 600 * MiB

/** What a round tells: `note` describes its input for the error message. Returns whether the input came past the first checks. */
export type Round = (random: () => number, note: (what: string) => void) => Promise<boolean> | boolean

/**
 * Runs rounds, each from a seed of its own: FUZZ_SEED=<what a failure prints> runs that one first. Fails for a round that throws, is slow, for memory
 * that grows, and when fewer than `leastPassed` (0 to 1) came past the first checks.
 */
export async function fuzz(name: string, { leastPassed }: { readonly leastPassed: number }, round: Round): Promise<void> {
  const first = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
  const memory = process.memoryUsage.rss()
  let [rounds, passed, slowest] = [0, 0, 0]
  for (const end = performance.now() + SECONDS * 1000; rounds === 0 || performance.now() < end; rounds++) {
    const start = performance.now()
    let what = ''
    try {
      if (await round(randomOf(first + rounds), (text) => { what = text })) passed++
    } catch (error) {
      throw new Error(`${name}: FUZZ_SEED=${first + rounds}: ${what}`, { cause: error })
    }
    const took = performance.now() - start
    if (took > SLOW_MS) throw new Error(`${name}: FUZZ_SEED=${first + rounds}: ${what}: took ${took.toFixed(0)} ms`)
    slowest = Math.max(slowest, took)
    const grown = process.memoryUsage.rss() - memory
    if (grown > GROWTH) throw new Error(`${name}: FUZZ_SEED=${first + rounds}: ${what}: grew by ${Math.round(grown / MiB)} MiB`)
  }
  const rate = passed / rounds
  process.stdout.write(`${name}: FUZZ_SEED=${first}, ${rounds} rounds, ${Math.round(100 * rate)} % past the first checks, slowest ${slowest.toFixed(0)} ms\n`)
  if (rounds >= 50) expect(rate, name).toBeGreaterThan(leastPassed)
}

/** The value, or undefined for a coded error; anything else is thrown on. */
export async function valueOrCoded<T>(run: () => Promise<T> | T): Promise<T | undefined> {
  try {
    return await run()
  } catch (error) {
    if (!isCoded(error)) throw error
    return undefined
  }
}

// Sparse files, in the four ways GNU tar has stored them: one list of segments comes out.
// SPEC: GNU tar manual, appendix "Storing Sparse Files" (old GNU, PAX 0.0, 0.1, 1.0).

import { type Fail, MAX_SEGMENTS, type Segment } from './entry.ts'
import { BLOCK_SIZE, gnuHeader, gnuSparseBlock, gnuSparseSegment, parseNumber } from './header.ts'

/**
 * Offsets and lengths that take turns → segments. They must rise without overlap, end inside `realSize` and hold `storedSize` bytes in all.
 * GNU tar marks a hole at the end with an empty segment; those are dropped. Fails with TAR_INVALID.
 */
export function checkSegments(pairs: readonly number[], { realSize, storedSize, fail }: { realSize: number; storedSize: number; fail: Fail }): Segment[] {
  if (pairs.length % 2 !== 0) throw fail('its sparse map ends inside a pair')
  const segments: Segment[] = []
  let end = 0
  let stored = 0
  for (let i = 0; i < pairs.length; i += 2) {
    const offset = pairs[i]!
    const length = pairs[i + 1]!
    if (offset < end) throw fail('its sparse segments overlap or are out of order')
    end = offset + length
    if (end > realSize) throw fail('a sparse segment lies beyond the end of the file')
    if (length === 0) continue
    stored += length
    segments.push([offset, length])
  }
  if (stored !== storedSize) throw fail(`its sparse map holds ${stored} bytes, the archive ${storedSize}`)
  return segments
}

/** Appends the rows of an old GNU header's or continuation block's table to `pairs`; true when another block follows. Fails with TAR_INVALID. */
export function readGnuSegments(block: Uint8Array, at: number, { form, pairs, fail }: { form: 'header' | 'continuation'; pairs: number[]; fail: Fail }): boolean {
  const [table, rows] = form === 'header' ? [gnuHeader, 4] as const : [gnuSparseBlock, 21] as const
  const { offset: offsetAt, length: lengthAt } = gnuSparseSegment.offsetOf
  for (let row = 0; row < rows; row++) {
    const start = at + table.offsetOf.segments + row * gnuSparseSegment.size
    if (block[start + offsetAt] === 0 && block[start + lengthAt] === 0) break
    const offset = parseNumber(block, start + offsetAt, 12)
    const length = parseNumber(block, start + lengthAt, 12)
    if (!(offset >= 0 && length >= 0)) throw fail('its sparse map holds what is no number')
    if (pairs.length >= 2 * MAX_SEGMENTS) throw fail(`a sparse file of more than ${MAX_SEGMENTS} pieces`)
    pairs.push(offset, length)
  }
  return block[at + table.offsetOf.isExtended] !== 0
}

/** The map of PAX format 1.0: decimal lines (count, then offset and length of each segment) in whole blocks before the data. */
export class SparseMapText {
  readonly pairs: number[] = []
  readonly #fail: Fail
  #count: number | undefined
  #number = 0
  #digits = 0

  constructor(fail: Fail) {
    this.#fail = fail
  }

  /** Takes the block at `at`; true when the map is complete. What is left of its last block is padding. Fails with TAR_INVALID. */
  takeBlock(block: Uint8Array, at: number): boolean {
    for (let i = at; i < at + BLOCK_SIZE; i++) {
      const code = block[i]!
      if (code === 0x0a) {
        if (this.#takeNumber()) return true
      } else {
        if (code < 0x30 || code > 0x39) throw this.#fail('its sparse map holds what is no number')
        this.#number = this.#number * 10 + (code - 0x30)
        if (++this.#digits > 16 || this.#number > Number.MAX_SAFE_INTEGER) throw this.#fail('its sparse map holds a number of 2^53 or more')
      }
    }
    return false
  }

  #takeNumber(): boolean {
    if (this.#digits === 0) throw this.#fail('its sparse map has an empty line')
    const number = this.#number
    this.#number = this.#digits = 0
    if (this.#count !== undefined) this.pairs.push(number)
    else if (number > MAX_SEGMENTS) throw this.#fail(`a sparse file of more than ${MAX_SEGMENTS} pieces`)
    else this.#count = number
    return this.pairs.length === 2 * this.#count!
  }
}

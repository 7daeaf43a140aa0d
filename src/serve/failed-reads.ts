// Reads that failed after a long wait. The kernel asks for each page of them once more before it tells the reader, who would wait twice as long; and whoever
// waited for the same page would begin anew.

import type { Miss } from './fuse/core.ts'

/** LIMIT: for so long after a failure the same bytes fail at once. The kernel repeats within milliseconds; a reader who tries again later deserves an attempt. */
const REMEMBERED_MS = 1000
/** LIMIT: quicker failures may just happen again. */
const SLOW_MS = 1000
/** LIMIT: as many as requests can be under way; more are forgotten, oldest first. */
const MAX_REMEMBERED = 256

interface Failed { readonly miss: Miss; readonly errno: number; readonly until: number }

/** What failed within the last second. */
export class FailedReads {
  #failed: Failed[] = []

  /** Remembers a failure that took `tookMs`. */
  note(miss: Miss, errno: number, tookMs: number): void {
    if (tookMs < SLOW_MS) return
    this.#failed.push({ miss, errno, until: performance.now() + REMEMBERED_MS })
    if (this.#failed.length > MAX_REMEMBERED) this.#failed.shift()
  }

  /** The errno of a failure that these bytes were part of, or undefined. */
  find({ serial, nid, offset, length }: Miss): number | undefined {
    if (this.#failed.length === 0) return undefined
    const now = performance.now()
    this.#failed = this.#failed.filter(({ until }) => until > now)
    return this.#failed.find(({ miss }) => miss.serial === serial && miss.nid === nid && offset < miss.offset + miss.length && miss.offset < offset + length)?.errno
  }
}

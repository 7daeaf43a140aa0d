// Starts readers.py over a mount and tells what its readers saw.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { eventually } from './nydusd.ts'

/** An operation that took long; times in milliseconds of the monotonic clock (`performance` of no process: see `clock`). */
export interface Slow { readonly from: number; readonly to: number; readonly kind: 'read' | 'listing' | 'lookup' }

const KINDS = ['read', 'listing', 'lookup'] as const

/** The clock of the readers, in milliseconds. */
export function clock(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** Readers at work; disposing ends them. */
export class Readers implements AsyncDisposable {
  readonly wrong: string[] = []
  readonly slow: Slow[] = []
  operations = 0
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #state: string
  readonly #closed: Promise<void>

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>, state: string, onReady: () => void) {
    this.#child = child
    this.#state = state
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      for (const line of lines) {
        const [word, ...numbers] = line.split(' ')
        if (word === 'reading') onReady()
        else if (word === 'slow') this.slow.push({ from: Number(numbers[0]) / 1e6, to: Number(numbers[1]) / 1e6, kind: KINDS[Number(numbers[2]) - 1]! })
        else if (word === 'end') this.operations = Number(numbers[0])
        else this.wrong.push(line)
      }
    })
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()))
  }

  /** Reads `mount` and compares with `copy`, `threads` at once; `state` is a file to be made. */
  static async start({ mount, copy, threads, state }: { readonly mount: string; readonly copy: string; readonly threads: number; readonly state: string }): Promise<Readers> {
    const child = spawn('python3', [path.join(import.meta.dirname, 'readers.py'), mount, copy, String(threads), state], { stdio: ['pipe', 'pipe', 'inherit'] })
    let isReady = false
    const readers = new Readers(child, state, () => { isReady = true })
    await eventually(() => isReady, 'the readers read')
    return readers
  }

  /** What each reader is doing at this moment; 0 for nothing. */
  states(): number[] {
    return this.#bytes().states
  }

  /** Resolves when every reader has finished what it is doing at this moment. */
  async caughtUp(): Promise<void> {
    const before = this.#bytes().counts
    await eventually(() => this.#bytes().counts.every((count, i) => count !== before[i]), 'every reader goes on', 30_000)
  }

  #bytes(): { states: number[]; counts: number[] } {
    const all = [...readFileSync(this.#state)]
    return { states: all.slice(0, all.length / 2), counts: all.slice(all.length / 2) }
  }

  /** How many readers are inside a read, and inside a listing, at this moment. */
  inflight(): { reads: number; listings: number } {
    const states = this.states()
    return { reads: states.filter((kind) => kind === 1).length, listings: states.filter((kind) => kind === 2).length }
  }

  /** Ends them after their operations at hand. */
  async stop(): Promise<void> {
    this.#child.stdin.end()
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill('SIGKILL')
    await this.#closed
  }
}

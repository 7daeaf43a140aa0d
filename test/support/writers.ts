// Starts writers.py over a mount and tells what its writers found.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { eventually } from './nydusd.ts'

/** Writers at work; disposing ends them. */
export class Writers implements AsyncDisposable {
  readonly wrong: string[] = []
  operations = 0
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #closed: Promise<void>
  #isWriting = false

  private constructor(mount: string, writers: number) {
    this.#child = spawn('python3', [path.join(import.meta.dirname, 'writers.py'), mount, String(writers)], { stdio: ['pipe', 'pipe', 'inherit'] })
    let rest = ''
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      for (const line of lines) {
        const [word, number] = line.split(' ')
        if (word === 'writing') this.#isWriting = true
        else if (word === 'end') this.operations = Number(number)
        else this.wrong.push(line)
      }
    })
    this.#closed = new Promise((resolve) => this.#child.once('close', () => resolve()))
  }

  static async start(mount: string, writers: number): Promise<Writers> {
    const started = new Writers(mount, writers)
    await eventually(() => started.#isWriting || started.wrong.length > 0, 'the writers write')
    return started
  }

  /** Lets every writer compare what it has written. */
  async stop(): Promise<void> {
    this.#child.stdin.end()
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

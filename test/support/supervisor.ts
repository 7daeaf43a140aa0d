// Starts supervisor.py: keeps a daemon's state and descriptor, as the snapshotter does.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { eventually } from './nydusd.ts'

/** A supervisor at work; disposing ends it, and with it the connection that it keeps. */
export class Supervisor implements AsyncDisposable {
  readonly socket: string
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: string[] = []
  readonly #closed: Promise<void>

  private constructor(socket: string) {
    this.socket = socket
    this.#child = spawn('python3', [path.join(import.meta.dirname, 'supervisor.py'), socket], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#closed = new Promise((resolve) => this.#child.once('close', () => resolve()))
    let rest = ''
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      this.#lines.push(...lines)
    })
  }

  static async start(socket: string): Promise<Supervisor> {
    const supervisor = new Supervisor(socket)
    await eventually(() => existsSync(socket), 'the supervisor listens')
    return supervisor
  }

  /** Gives a command (supervisor.py lists them) and does `meanwhile`, which makes a daemon connect; resolves with what the supervisor says of the transfer. */
  async expecting(command: string, meanwhile: () => Promise<unknown>): Promise<string> {
    await this.#say(command)
    await meanwhile()
    return await this.#line()
  }

  /** A command that no daemon answers. */
  async tell(command: 'drop' | `write ${string}`): Promise<void> {
    await this.#say(command)
  }

  async #say(command: string): Promise<void> {
    this.#child.stdin.write(`${command}\n`)
    await this.#line()
  }

  async #line(): Promise<string> {
    await eventually(() => this.#lines.length > 0, 'the supervisor answers')
    return this.#lines.shift()!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#closed
  }
}

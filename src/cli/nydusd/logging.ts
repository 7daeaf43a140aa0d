// What the daemon logs: events of the ranks below, as text on a terminal and as JSON lines elsewhere.

import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs'
import path from 'node:path'
import { isatty } from 'node:tty'
import { type Events, subscribe } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { LOG_LEVELS, type LogLevel } from '../conventions.ts'

/** `events`: what happens in the process is logged here; false where it happens to several daemons that have a log each. */
export interface LogOptions { readonly level: LogLevel; readonly file: string | undefined; readonly rotationMiB: number; readonly events?: boolean }

const LEVEL_OF: { readonly [N in keyof Events]?: LogLevel } = {
  'serve:daemon:state': 'info',
  'serve:mount:done': 'info',
  'serve:request:error': 'error',
  'serve:request:repeated': 'info',
  'serve:transport:chosen': 'info',
  'serve:warning:raised': 'warn',
  'storage:backend:read': 'debug',
  'storage:backend:error': 'warn',
  'storage:chunk:corrupt': 'error',
  'storage:cache:degraded': 'warn',
  'storage:cache:evicted': 'info',
  'registry:credentials:skipped': 'warn',
  'registry:request:retry': 'warn',
  'registry:proxy:ill': 'warn',
  'registry:mirror:failed': 'warn',
  'registry:request:done': 'debug',
}

/** The daemon's log; one a process. */
export class Log {
  #level: number
  #fd: number
  #size = 0
  /** Path of the log file; undefined when it is stderr. */
  readonly file: string | undefined
  readonly #limit: number
  readonly #text: boolean

  /** Opens the file (its directory is made: the snapshotter relies on it) or uses stderr, and subscribes. @throws CONFIG_INVALID */
  constructor({ level, file, rotationMiB, events = true }: LogOptions) {
    this.#level = LOG_LEVELS.indexOf(level)
    this.file = file === undefined ? undefined : path.extname(file) === '' ? `${file}.log` : file
    this.#limit = rotationMiB * MiB
    this.#fd = this.file === undefined ? 2 : openLog(this.file)
    this.#text = isatty(this.#fd)
    if (this.file !== undefined) this.#size = fstatSync(this.#fd).size
    if (events) for (const [name, at] of eventLevels()) subscribe(name, (event) => this.write(at, name, event))
  }

  /** Goes on in a file of the same name: somebody has renamed the one before. Where there is none to be had, in the one before. */
  reopen(): void {
    if (this.file === undefined) return
    try {
      const fd = openLog(this.file)
      closeSync(this.#fd)
      this.#fd = fd
      this.#size = fstatSync(fd).size
    } catch (error) {
      this.write('warn', error instanceof Error ? error.message : String(error))
    }
  }

  /** Nothing is written after that. */
  close(): void {
    if (this.file !== undefined) closeSync(this.#fd)
    this.#level = LOG_LEVELS.length
  }

  /** From now on; an unknown level changes nothing. */
  setLevel(level: string): void {
    for (const [index, known] of LOG_LEVELS.entries()) if (known === level) this.#level = index
  }

  /** One line. Never throws: a full disk must not stop the daemon. */
  write(level: LogLevel, message: string, fields: object = {}): void {
    if (LOG_LEVELS.indexOf(level) < this.#level) return
    const time = new Date().toISOString()
    const line = this.#text
      ? `${time} ${level.toUpperCase().padEnd(5)} ${message}${Object.entries(fields).map(([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join('')}\n`
      : `${JSON.stringify({ time, level, message, ...fields })}\n`
    try {
      this.#rotate(line.length)
      writeSync(this.#fd, line)
    } catch {
      // nobody is left to tell
    }
  }

  // One older file is kept: a bound on the space, and the lines before a crash are still there.
  #rotate(length: number): void {
    this.#size += length
    if (this.file === undefined || this.#limit === 0 || this.#size <= this.#limit) return
    renameSync(this.file, `${this.file}.1`)
    closeSync(this.#fd)
    this.#fd = openLog(this.file)
    this.#size = length
  }
}

function openLog(file: string): number {
  try {
    mkdirSync(path.dirname(file), { recursive: true })
    return openSync(file, 'a')
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `cannot write the log file ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

function eventLevels(): [keyof Events, LogLevel][] {
  // SAFETY: the keys of LEVEL_OF are event names by its type.
  return Object.entries(LEVEL_OF) as [keyof Events, LogLevel][]
}

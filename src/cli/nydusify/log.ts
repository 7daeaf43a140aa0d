// Log lines of nydusify, on stderr or in a file, in the form of upstream's (logrus): with a terminal `INFO[time] text`, else key=value.

import { createWriteStream, mkdirSync } from 'node:fs'
import path from 'node:path'
import type { Writable } from 'node:stream'
import { usageError } from './flags.ts'

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'panic'] as const
type Level = (typeof LEVELS)[number]

let least = LEVELS.indexOf('info')
let output: Writable = process.stderr
/** Called around a line on the terminal, so that a progress display can make room. */
let aroundLine: (write: () => void) => void = (write) => write()

/** Sets level and destination for this process. A usage error for an unknown level. */
export function startLogging({ level, file }: { level: string; file: string | undefined }): void {
  const wanted = level === 'warning' ? 'warn' : level
  const names: readonly string[] = LEVELS
  const at = names.indexOf(wanted)
  if (at < 0) throw usageError(`not a valid log level: "${level}"`)
  least = at
  if (file === undefined) return
  mkdirSync(path.dirname(path.resolve(file)), { recursive: true })
  output = createWriteStream(file, { flags: 'a' })
}

/** Whether lines and a progress display share the terminal. */
export function logsToTerminal(): boolean {
  return output === process.stderr && process.stderr.isTTY === true
}

/** Lets a display hide itself while a line is written; returns the function that ends that. */
export function aroundLogLines(around: (write: () => void) => void): () => void {
  aroundLine = around
  return () => { aroundLine = (write) => write() }
}

export const log = {
  debug: (text: string) => line('debug', text),
  info: (text: string) => line('info', text),
  warn: (text: string) => line('warn', text),
  /** The reason why the program ends. */
  fatal: (text: string) => line('fatal', text),
}

function line(level: Level, text: string): void {
  if (LEVELS.indexOf(level) < least) return
  const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
  const whole = logsToTerminal()
    ? `${level.slice(0, 4).toUpperCase()}[${time}] ${text}\n`
    : `time="${time}" level=${level === 'warn' ? 'warning' : level} msg=${JSON.stringify(text)}\n`
  aroundLine(() => output.write(whole))
}

// Progress of layers: a block of lines that is drawn over itself on a terminal, log lines elsewhere.
//
//   a9c4bcdaefe4  pull     [===========>        ]  14.2/26.1 MiB   35.1 MiB/s   1s left

import pc from 'picocolors'
import { MiB } from '../../core/units.ts'
import type { ProgressEvent } from '../../library/progress.ts'
import { aroundLogLines, log, logsToTerminal } from './log.ts'

type Phase = Extract<ProgressEvent, { type: 'layer' }>['phase']

interface Row { phase: Phase; bytes: number; totalBytes: number; startedMs: number; endedMs: number | undefined }

/** Ten frames a second: faster is not read, slower looks stuck. */
const FRAME_MS = 100
const BAR_WIDTH = 20
/** LIMIT: a terminal's height minus room for log lines; more layers are summed up in a line. */
const MAX_ROWS = 20
/** How long a finished layer stays in view. */
const LINGER_MS = 3000

/** Hears events until closed. */
export interface ProgressDisplay { readonly hear: (event: ProgressEvent) => void; close(): void }

/** A block on the terminal if stderr is one and logs go there, else log lines. */
export function showProgress(): ProgressDisplay {
  return logsToTerminal() ? new TerminalProgress() : new LoggedProgress()
}

class LoggedProgress implements ProgressDisplay {
  readonly #phases = new Map<string, string>()

  readonly hear = (event: ProgressEvent): void => {
    if (event.type !== 'layer') { tell(event); return }
    const { digest, phase, bytes, totalBytes } = event
    const complete = phase === 'done' || phase === 'reused' || (phase === 'pull' && bytes >= totalBytes)
    const said = `${phase}${complete}`
    if (this.#phases.get(digest) === said || (phase === 'convert') || (!complete && phase !== 'pull' && phase !== 'push')) return
    this.#phases.set(digest, said)
    if (phase === 'done') log.info(`layer ${digest}: pushed ${inMiB(bytes)} MiB`)
    else if (phase === 'reused') log.info(`layer ${digest}: reused, ${inMiB(bytes)} MiB`)
    else if (complete) log.info(`layer ${digest}: pulled ${inMiB(totalBytes)} MiB`)
    else log.debug(`layer ${digest}: ${phase} of ${inMiB(totalBytes)} MiB begins`)
  }

  close(): void {}
}

class TerminalProgress implements ProgressDisplay {
  readonly #rows = new Map<string, Row>()
  readonly #stream = process.stderr
  readonly #timer = setInterval(() => this.#draw(), FRAME_MS)
  readonly #endLogging = aroundLogLines((write) => { this.#erase(); write(); this.#draw() })
  #drawn = 0

  readonly hear = (event: ProgressEvent): void => {
    if (event.type !== 'layer') { tell(event); return }
    const { digest, phase, bytes, totalBytes } = event
    const known = this.#rows.get(digest)
    // packing goes on while the layer is pulled: the pull is what its end can be told from
    if (phase === 'convert' && known?.phase === 'pull' && known.bytes < known.totalBytes) return
    const isEnd = phase === 'done' || phase === 'reused'
    const startedMs = known?.phase === phase ? known.startedMs : performance.now()
    this.#rows.set(digest, { phase, bytes, totalBytes, startedMs, endedMs: isEnd ? performance.now() : undefined })
  }

  close(): void {
    clearInterval(this.#timer)
    this.#erase()
    this.#endLogging()
  }

  #draw(): void {
    this.#erase()
    const now = performance.now()
    const rows = [...this.#rows].filter(([, { endedMs }]) => endedMs === undefined || now - endedMs < LINGER_MS)
    const width = this.#stream.columns || 80
    const lines = rows.slice(0, MAX_ROWS).map(([digest, row]) => lineOf(digest, row, now).slice(0, width - 1))
    if (rows.length > MAX_ROWS) lines.push(`… and ${rows.length - MAX_ROWS} more layers`)
    this.#stream.write(lines.map((line) => `${line}\n`).join(''))
    this.#drawn = lines.length
  }

  #erase(): void {
    if (this.#drawn > 0) this.#stream.write(`\x1b[${this.#drawn}A\x1b[0J`)
    this.#drawn = 0
  }
}

/** One layer as text; `now` in milliseconds of performance.now(). */
export function lineOf(digest: string, { phase, bytes, totalBytes, startedMs }: Omit<Row, 'endedMs'>, now: number): string {
  const name = `${digest.replace(/^sha256:/, '').slice(0, 12)}  ${phase.padEnd(7)}`
  if (phase === 'done' || phase === 'reused') return `${name}  ${inMiB(bytes)} MiB`
  const seconds = Math.max((now - startedMs) / 1000, 0.001)
  const rate = bytes / seconds
  if (totalBytes === 0) return `${name}  ${inMiB(bytes)} MiB  ${inMiB(rate)} MiB/s`
  const filled = Math.floor(Math.min(1, bytes / totalBytes) * BAR_WIDTH)
  const bar = `${'='.repeat(Math.max(0, filled - 1))}${filled > 0 ? '>' : ''}`.padEnd(BAR_WIDTH)
  const left = rate === 0 ? '' : `  ${timeText((totalBytes - bytes) / rate)} left`
  return `${name}  [${bar}]  ${inMiB(bytes)}/${inMiB(totalBytes)} MiB  ${inMiB(rate)} MiB/s${left}`
}

function tell(event: Exclude<ProgressEvent, { type: 'layer' }>): void {
  if (event.type === 'warning') log.warn(logsToTerminal() ? pc.yellow(event.message) : event.message)
  else log.info(`${event.step}: ${event.detail}${event.durationMs === 0 ? '' : `, in ${(event.durationMs / 1000).toFixed(2)} s`}`)
}

function inMiB(bytes: number): string {
  return (bytes / MiB).toFixed(1)
}

function timeText(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole}s`
  return whole < 3600 ? `${Math.floor(whole / 60)}m${whole % 60}s` : `${Math.floor(whole / 3600)}h${Math.floor((whole % 3600) / 60)}m`
}

// Storms: a daemon is killed or replaced again and again at random moments while readers check every byte of its mount.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { clock, Readers } from './readers.ts'
import { eventually, pause, type RunningDaemon, type Scratch, startNydusd } from './nydusd.ts'
import { Supervisor } from './supervisor.ts'

const NYDUS_IMAGE = path.resolve(import.meta.dirname, '../../bin/nydus-image')

/** LIMIT: what begins this soon after a kill is what its reader would have read next; what begins later, after the recovery, says nothing of the gap. */
const INTERRUPTED_MS = 50

/** A tree, its image, and where its blobs are; below the scratch. */
export interface StormImage { readonly source: string; readonly args: readonly string[] }

/** Bytes that look random and are the same each time. */
function bytesOf(seed: string, size: number): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i * 32 < size; i++) parts.push(createHash('sha256').update(`${seed}:${i}`).digest())
  return Buffer.concat(parts).subarray(0, size)
}

/** About 12 MiB in 60 files of all sizes. `cached: false`: nothing is cached, so that most reads wait for the backend. */
export function stormImage(scratch: Scratch, { cached }: { readonly cached: boolean }): StormImage {
  const source = path.join(scratch.path, 'source')
  const blobs = path.join(scratch.path, 'blobs')
  for (let i = 0; i < 60; i++) {
    mkdirSync(path.join(source, `directory-${i % 6}`), { recursive: true })
    writeFileSync(path.join(source, `directory-${i % 6}`, `file-${i}`), bytesOf(`file ${i}`, [100, 5000, 70_000, 300_000, 700_000][i % 5]! + i))
  }
  mkdirSync(blobs)
  const bootstrap = path.join(scratch.path, 'boot')
  execFileSync(NYDUS_IMAGE, ['create', '-l', 'warn', '-B', bootstrap, '-D', blobs, '--chunk-size', '0x10000', source])
  const config = scratch.config(blobs, cached ? {} : { device: { backend: { type: 'localfs', config: { dir: blobs } }, cache: { type: 'dummycache' } } })
  return { source, args: ['--bootstrap', bootstrap, '--config', config] }
}

/** What a storm was like; times in ms. */
export interface StormResult {
  readonly wrong: readonly string[]
  readonly operations: number
  /** For each kill that had no other one in its wake: from it to the end of the last operation that it interrupted. */
  readonly gaps: readonly number[]
  /** Kills while at least one read and one listing were under way. */
  readonly inflightKills: number
}

export interface StormOptions {
  readonly rounds: number
  readonly threads?: number
  /** Kills and brings back; returns the moment of the kill, by the readers' `clock`. */
  readonly round: (moment: { readonly number: number; freeze(pid: number): Promise<void> }) => Promise<number>
}

/** Runs `rounds` rounds over the mount of `scratch`. Every second one may freeze the victim until requests are under way. */
export async function storm(scratch: Scratch, image: StormImage, { rounds, threads = 8, round }: StormOptions): Promise<StormResult> {
  await using readers = await Readers.start({ mount: scratch.mountpoint, copy: image.source, threads, state: path.join(scratch.path, 'readers') })
  const kills: { readonly at: number; readonly isAlone: boolean }[] = []
  let inflightKills = 0
  const freeze = async (pid: number): Promise<void> => {
    process.kill(pid, 'SIGSTOP') // so that what is under way stays so until the kill
    const areUnderWay = (): boolean => readers.inflight().reads > 0 && readers.inflight().listings > 0
    await eventually(async () => { // and stay so: the signal may have been on its way when they were seen first
      if (!areUnderWay()) return false
      await pause(10)
      return areUnderWay()
    }, 'requests are under way')
    inflightKills++
  }
  for (let number = 0; number < rounds; number++) {
    await pause(30 + Math.random() * 120)
    const at = await round({ number, freeze })
    // every fourth kill comes while readers have not recovered from the one before
    const isAlone = number % 4 !== 3
    kills.push({ at, isAlone })
    if (isAlone) await readers.caughtUp()
  }
  await readers.caughtUp()
  await pause(200)
  await readers.stop()
  const gaps = kills.filter(({ isAlone }) => isAlone).map(({ at }) => Math.max(0, ...readers.slow.filter(({ from, to }) => to > at && from < at + INTERRUPTED_MS).map(({ to }) => to - at)))
  return { wrong: readers.wrong, operations: readers.operations, gaps, inflightKills }
}

/** What readers may see of a kill and of an upgrade on a machine that does nothing else, in ms. */
export const GAPS = { kill: { p50: 500, max: 1500 }, upgrade: { p50: 100, max: 1500 } } as const

/** Prints what a storm was like; with STORM_LIMITS (scripts/storm.sh) throws when its gaps are longer than they may be. */
export function report(name: string, { operations, gaps, inflightKills }: StormResult, limits: { readonly p50: number; readonly max: number }): void {
  const [p50, max] = [quantile(gaps, 0.5), Math.max(...gaps)]
  console.log(`${name}: ${gaps.length} gaps, ${operations} operations, p50 ${p50.toFixed(0)} ms, max ${max.toFixed(0)} ms, in flight at ${inflightKills}`)
  if (process.env['STORM_LIMITS'] && (p50 > limits.p50 || max > limits.max)) throw new Error(`${name}: a gap of ${p50.toFixed(0)} ms (p50) or ${max.toFixed(0)} ms (max) is too long`)
}

/** The value that a part `q` of the values does not exceed. */
function quantile(values: readonly number[], q: number): number {
  return [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? 0
}

type StartOptions = Pick<NonNullable<Parameters<typeof startNydusd>[2]>, 'where'>

/** A daemon under a supervisor: what the snapshotter does with one. */
export class Supervised implements AsyncDisposable {
  daemon: RunningDaemon
  readonly supervisor: Supervisor
  readonly #scratch: Scratch
  readonly #args: readonly string[]
  readonly #where: StartOptions
  #upgrades = 0

  private constructor(scratch: Scratch, supervisor: Supervisor, daemon: RunningDaemon, args: readonly string[], where: StartOptions) {
    this.#where = where
    this.#scratch = scratch
    this.supervisor = supervisor
    this.daemon = daemon
    this.#args = args
  }

  /** `where`: words of another transport. */
  static async start(scratch: Scratch, image: readonly string[], where: StartOptions = {}): Promise<Supervised> {
    const supervisor = await Supervisor.start(path.join(scratch.path, 'supervisor.sock'))
    const args = ['--id', 'storm', '--supervisor', supervisor.socket, ...image]
    const supervised = new Supervised(scratch, supervisor, await startNydusd(scratch, args, where), args, where)
    await supervised.save()
    return supervised
  }

  /** The supervisor takes state and descriptor from the daemon. */
  async save(): Promise<void> {
    const said = await this.supervisor.expecting('receive', () => this.#put('sendfd', this.daemon))
    if (!said.startsWith('received ')) throw new Error(said)
  }

  /** Failover: kills the daemon, and the next one continues. Returns the moment of the kill. */
  async failover(before: (pid: number) => Promise<void> = async () => {}): Promise<number> {
    await before(this.daemon.pid)
    const at = clock()
    this.daemon.child.kill('SIGKILL')
    await this.daemon.ended
    this.daemon = await startNydusd(this.#scratch, this.#args, { ...this.#where, state: 'INIT', socket: this.#socket() })
    await this.takeOver(this.daemon)
    await this.#put('start', this.daemon)
    return at
  }

  /** A second daemon in INIT, beside the one that serves. */
  async startNext(): Promise<RunningDaemon> {
    this.#upgrades++
    return await startNydusd(this.#scratch, [...this.#args, '--upgrade'], { ...this.#where, state: 'INIT', socket: this.#socket() })
  }

  async takeOver(daemon: RunningDaemon): Promise<void> {
    await this.supervisor.expecting('send', () => this.#put('takeover', daemon))
  }

  /** Hot upgrade. Returns the moment at which the old one is told to go. */
  async upgrade(): Promise<number> {
    await this.save()
    const next = await this.startNext()
    await this.takeOver(next)
    const at = clock()
    await this.#put('exit', this.daemon)
    await this.daemon.ended
    await this.#put('start', next)
    this.daemon = next
    return at
  }

  #socket(): string {
    return this.#upgrades === 0 ? this.#scratch.socket : path.join(this.#scratch.path, `api${this.#upgrades}.sock`)
  }

  async #put(what: 'sendfd' | 'takeover' | 'start' | 'exit', daemon: RunningDaemon): Promise<void> {
    const { status, body } = await daemon.ask('PUT', `/api/v1/daemon/${what === 'sendfd' || what === 'takeover' ? `fuse/${what}` : what}`)
    if (status !== 204) throw new Error(`${what}: ${status} ${JSON.stringify(body)}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon[Symbol.asyncDispose]()
    await this.supervisor[Symbol.asyncDispose]()
  }
}

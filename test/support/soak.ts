// A daemon at work for a long time: images come and go, files are read and compared, the registry fails now and then. What it takes of the machine is
// measured all the while.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import path from 'node:path'
import { KiB, MiB } from '../../src/core/units.ts'
import { type FaultImage, faultImage } from './fault-case.ts'
import { FAULTS, type FaultServer, startFaultServer } from './fault-server.ts'
import { pause, type RunningDaemon, Scratch, startNydusd } from './nydusd.ts'

/** At one moment: bytes, counts. */
export interface Footprint { readonly pss: number; readonly descriptors: number; readonly threads: number }

export interface SoakResult {
  /** Means of the first and the second half of the time that was measured. */
  readonly halves: readonly [Footprint, Footprint]
  readonly peak: Footprint
  readonly mounts: number
  readonly reads: number
  readonly faults: number
  /** Reads that failed while the registry did, or while their image was being unmounted. */
  readonly errors: number
  /** What must not be: wrong bytes, errors without a reason, refusals of the API. */
  readonly wrong: readonly string[]
}

/** LIMIT: images in the daemon at once, and readers of each. */
const PLACES = 4
const READERS = 2
/** LIMIT: of images that differ, more than the cache holds. */
const IMAGES = 3
const QUOTA = 16 * MiB
const SAMPLE_MS = 500
/** A fault lasts so long, and peace after it. */
const FAULT_MS = 800
const PEACE_MS = 1700
/** An error so long after a fault is still its doing: reads wait. */
const AFTERMATH_MS = 25_000
/** LIMIT: a process that was not run for so long is on a machine that stood still: what times out then says nothing. */
const STALL_MS = 2000
/** The part of the time that is not measured: caches fill, code is compiled. */
const WARM_UP = 0.3

/** Runs for `minutes`; the daemon is gone afterwards. `log` hears of the footprint once a minute. */
export async function soak({ minutes, log = () => {} }: { readonly minutes: number; readonly log?: (line: string) => void }): Promise<SoakResult> {
  using scratch = new Scratch()
  const images: Served[] = []
  try {
    for (let i = 0; i < IMAGES; i++) images.push(await serve(scratch, i))
    await using daemon = await startNydusd(scratch, [])
    return await new Soak(scratch, daemon, images).run(minutes * 60_000, log)
  } finally {
    for (const { server } of images) await server[Symbol.asyncDispose]()
  }
}

interface Served { readonly server: FaultServer; readonly image: FaultImage; readonly bootstrap: string; readonly files: readonly (readonly [string, string])[] }

async function serve(scratch: Scratch, i: number): Promise<Served> {
  const image = await faultImage(`soak ${i}`)
  const bootstrap = path.join(scratch.path, `${i}.boot`)
  writeFileSync(bootstrap, image.bootstrap)
  return { server: await startFaultServer(image), image, bootstrap, files: Object.entries({ ...image.digests.demand, ...image.digests.between, ...image.digests.prefetch }) }
}

class Soak {
  readonly #scratch: Scratch
  readonly #daemon: RunningDaemon
  readonly #images: readonly Served[]
  readonly #wrong: string[] = []
  readonly #counts = { mounts: 0, reads: 0, faults: 0, errors: 0 }
  #faultUntil = 0
  #stalledUntil = 0
  #end = 0

  constructor(scratch: Scratch, daemon: RunningDaemon, images: readonly Served[]) {
    this.#scratch = scratch
    this.#daemon = daemon
    this.#images = images
  }

  async run(ms: number, log: (line: string) => void): Promise<SoakResult> {
    const begin = performance.now()
    this.#end = begin + ms
    let seen = begin
    const watching = setInterval(() => {
      const now = performance.now()
      if (now - seen > STALL_MS) this.#stalledUntil = now + AFTERMATH_MS
      seen = now
    }, 100)
    const samples: Footprint[] = []
    const measuring = this.#while(async () => {
      const now = footprintOf(this.#daemon.pid)
      if (performance.now() - begin > ms * WARM_UP) samples.push(now)
      const minute = Math.floor((performance.now() - begin) / 60_000)
      if (Math.floor((performance.now() - begin - SAMPLE_MS) / 60_000) !== minute) log(`${minute} min: ${shown(now)}, ${JSON.stringify(this.#counts)}`)
      await pause(SAMPLE_MS)
    })
    await Promise.all([measuring, this.#while(() => this.#fail()), ...Array.from({ length: PLACES }, (_, place) => this.#while(() => this.#use(place)))]).finally(() => clearInterval(watching))
    const half = samples.length >> 1
    return {
      halves: [mean(samples.slice(0, half)), mean(samples.slice(half))], ...this.#counts, wrong: this.#wrong,
      peak: { pss: Math.max(...samples.map(({ pss }) => pss)), descriptors: Math.max(...samples.map(({ descriptors }) => descriptors)), threads: Math.max(...samples.map(({ threads }) => threads)) },
    }
  }

  async #while(step: () => Promise<void>): Promise<void> {
    while (performance.now() < this.#end) await step()
  }

  /** All registries fail in one way. */
  async #fail(): Promise<void> {
    const fault = one(Object.values(FAULTS))
    this.#faultUntil = Number.POSITIVE_INFINITY
    for (const { server } of this.#images) server.fault = fault
    this.#counts.faults++
    await pause(FAULT_MS)
    for (const { server } of this.#images) server.fault = undefined
    this.#faultUntil = performance.now() + AFTERMATH_MS
    await pause(PEACE_MS)
  }

  /** Mounts, reads, unmounts; now and then while files are still being read. */
  async #use(place: number): Promise<void> {
    const served = one(this.#images)
    const mountpoint = `/place-${place}`
    const config = JSON.stringify({
      version: 2, backend: { type: 'registry', registry: { scheme: 'http', host: served.server.host, repo: 'a/b' } },
      cache: place % 2 === 0 ? { type: 'blobcache', filecache: { work_dir: this.#scratch.cache, quota: QUOTA } } : { type: 'dummycache' },
      rafs: { prefetch: { enable: Math.random() < 0.5, threads: 2, prefetch_all: true } },
    })
    await this.#ask('POST', `/api/v1/mount?mountpoint=${mountpoint}`, JSON.stringify({ fs_type: 'rafs', source: served.bootstrap, config }))
    this.#counts.mounts++
    const leaving = { since: Number.POSITIVE_INFINITY }
    const reading = Promise.all(Array.from({ length: READERS }, async () => {
      for (let i = 0; i < 6 && leaving.since > performance.now(); i++) await this.#read(mountpoint, one(served.files), leaving)
    }))
    if (Math.random() < 0.25) await pause(Math.random() * 300)
    else await reading
    leaving.since = performance.now()
    await this.#ask('DELETE', `/api/v1/mount?mountpoint=${mountpoint}`)
    await reading
  }

  async #read(mountpoint: string, [name, digest]: readonly [string, string], leaving: { readonly since: number }): Promise<void> {
    this.#counts.reads++
    try {
      const hash = createHash('sha256')
      await using file = await open(path.join(this.#scratch.mountpoint, mountpoint, name))
      const buffer = Buffer.allocUnsafe(512 * KiB)
      for (let at = 0; ;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
        if (bytesRead === 0) break
        hash.update(buffer.subarray(0, bytesRead))
        at += bytesRead
      }
      if (hash.digest('hex') !== digest) this.#wrong.push(`wrong bytes of ${name}`)
    } catch (error) {
      this.#counts.errors++
      const isExpected = performance.now() < Math.max(this.#faultUntil, this.#stalledUntil) || leaving.since < performance.now()
      if (!isExpected) this.#wrong.push(`${name}: ${String(error)}`)
    }
  }

  async #ask(method: string, url: string, body?: string): Promise<void> {
    const answer = await this.#daemon.ask(method, url, body).catch((error: unknown) => ({ status: 0, body: String(error) }))
    if (answer.status !== 204 && performance.now() > this.#stalledUntil) this.#wrong.push(`${method} ${url}: ${JSON.stringify(answer)}`)
  }
}

function footprintOf(pid: number): Footprint {
  return {
    pss: Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))![1]) * KiB,
    descriptors: readdirSync(`/proc/${pid}/fd`).length, threads: readdirSync(`/proc/${pid}/task`).length,
  }
}

/** For people. */
export function shown({ pss, descriptors, threads }: Footprint): string {
  return `${(pss / MiB).toFixed(1)} MiB, ${descriptors.toFixed(1)} descriptors, ${threads.toFixed(1)} threads`
}

function mean(samples: readonly Footprint[]): Footprint {
  const of = (key: keyof Footprint): number => samples.reduce((sum, sample) => sum + sample[key], 0) / Math.max(1, samples.length)
  return { pss: of('pss'), descriptors: of('descriptors'), threads: of('threads') }
}

function one<T>(all: readonly T[]): T {
  return all[Math.floor(Math.random() * all.length)]!
}

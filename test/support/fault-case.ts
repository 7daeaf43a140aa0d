// One case of the fault matrix: a daemon over a server that fails, readers in parallel, and what they saw.

import { spawn } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { KiB, MiB } from '../../src/core/units.ts'
import { build, makeTar, tarSource } from './built-image.ts'
import { startFaultServer, type FaultServer, type LaneOf } from './fault-server.ts'
import { eventually, pause, Scratch, startNydusd } from './nydusd.ts'

/** An image whose blob has a part that is prefetched, a part that is read, and enough between them that no range has both. */
export interface FaultImage {
  readonly bootstrap: Uint8Array
  readonly blobId: string
  readonly blob: Buffer
  readonly digests: { readonly prefetch: Digests; readonly between: Digests; readonly demand: Digests }
  readonly laneOf: LaneOf
}
export type Digests = Readonly<Record<string, string>>

/** Of all files but the one of 8 MiB. */
export const FILE_SIZE = 192 * KiB + 77

/** `seed` makes another one. */
export async function faultImage(seed = ''): Promise<FaultImage> {
  const files = (folder: string, count: number, size: number) => Array.from({ length: count }, (_, i) => ({ path: `${folder}/f${String(i).padStart(2, '0')}`, data: noise(`${seed}${folder} ${i}`, size) }))
  const [prefetch, between, demand] = [files('a-prefetch', 8, FILE_SIZE), files('b-between', 1, 8 * MiB), files('c-demand', 12, FILE_SIZE)]
  const built = await build(tarSource(makeTar([...prefetch, ...between, ...demand])), { compressor: 'none', chunkSize: 64 * KiB })
  const begin = (data: Buffer): number => built.bytes.indexOf(data.subarray(0, 64))
  const [betweenAt, demandAt] = [begin(between[0]!.data), begin(demand[0]!.data)]
  const end = begin(demand.at(-1)!.data) + FILE_SIZE
  if (!(begin(prefetch[0]!.data) < betweenAt && betweenAt < demandAt && demandAt < end)) throw new Error('the files do not lie in the order in which they were given')
  const digestsOf = (some: readonly { path: string; data: Buffer }[]): Digests => Object.fromEntries(some.map(({ path: name, data }) => [`/${name}`, createHash('sha256').update(data).digest('hex')]))
  return {
    bootstrap: built.bootstrap, blobId: built.blobs[0]!, blob: built.bytes,
    digests: { prefetch: digestsOf(prefetch), between: digestsOf(between), demand: digestsOf(demand) },
    laneOf: ({ from, to }) => from < betweenAt ? 'prefetch' : from < end && to >= demandAt ? 'demand' : 'other',
  }
}

export interface Report { readonly wrong: readonly string[]; readonly errors: readonly (readonly [string, string])[]; readonly right: number; readonly longest: number }

export interface CaseContext { readonly server: FaultServer; readonly image: FaultImage; readonly directory: string }

export interface RunningFault {
  end(): Promise<void> | void
  /** Whom it hit, where the fault does not lie in the server. */
  readonly hit?: { readonly demand: number; readonly prefetch: number }
  /** Fields of the registry's configuration. */
  readonly registry?: object
  /** Runs nydusd, and in which environment. */
  readonly program?: string
  readonly env?: NodeJS.ProcessEnv
  /** The daemon runs. */
  started?(pid: number): void
  /** Readers are about to start; what stands before their command line. */
  reading?(pid: number): readonly string[]
  close?(): Promise<void>
}

export interface FaultCase {
  readonly name: string
  /** Makes the fault begin; before the daemon starts. */
  begin(context: CaseContext): Promise<RunningFault>
  /** Until the readers have their bytes or their errors, not for a moment. */
  readonly lasts?: boolean
}

export interface Outcome {
  readonly hit: { readonly demand: number; readonly prefetch: number }
  /** What readers saw while the fault was there, and when it was over. */
  readonly during: Report
  readonly after: Report
  readonly authorizations: ReadonlySet<string | undefined>
}

/** LIMIT: a fault that passes is there for so long after it hit a reader. */
const MOMENT_MS = 700
export const AUTH = Buffer.from('me:hunter2').toString('base64')

export async function runCase(image: FaultImage, one: FaultCase): Promise<Outcome> {
  using scratch = new Scratch()
  await using server = await startFaultServer(image)
  const fault = await one.begin({ server, image, directory: scratch.path })
  try {
    const at = (name: string, content: string | Uint8Array): string => { const file = path.join(scratch.path, name); writeFileSync(file, content); return file }
    const config = at('config.json', JSON.stringify({
      version: 2, backend: { type: 'registry', registry: { scheme: 'http', host: server.host, repo: 'a/b', auth: AUTH, ...fault.registry } },
      cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } }, rafs: { prefetch: { enable: true, threads: 2 } },
    }))
    const list = at('prefetch', Object.keys(image.digests.prefetch).join('\n'))
    const { program, env } = fault
    await using daemon = await startNydusd(scratch, ['--bootstrap', at('boot', image.bootstrap), '--config', config, '--prefetch-files', list], { ...(program !== undefined && { program }), ...(env && { env }) })
    fault.started?.(daemon.pid)
    const hit = fault.hit ?? server.hit
    await eventually(() => hit.prefetch > 0, `${one.name} hits the prefetch`, 20_000)
    // readers of one file wait together; of many, one after the other
    const wanted = one.lasts ? Object.fromEntries(Object.entries(image.digests.demand).slice(0, 1)) : image.digests.demand
    const wrapper = fault.reading?.(daemon.pid) ?? []
    const reading = readAll(scratch.mountpoint, { digests: wanted, wrapper })
    await eventually(() => hit.demand > 0, `${one.name} hits a reader`, 20_000)
    if (!one.lasts) await pause(MOMENT_MS)
    if (!one.lasts) await fault.end()
    const during = await reading
    if (one.lasts) {
      await fault.end()
      await pause(1100) // what just failed may be asked for again after a second
    }
    const after = await readAll(scratch.mountpoint, { digests: { ...image.digests.demand, ...image.digests.between, ...image.digests.prefetch }, wrapper })
    return { hit, during, after, authorizations: server.authorizations }
  } finally {
    await fault.close?.()
  }
}

/** Four threads of another process, each through all files. */
async function readAll(mountpoint: string, { digests, wrapper }: { readonly digests: Digests; readonly wrapper: readonly string[] }): Promise<Report> {
  const [command, ...args] = [...wrapper, 'python3', path.join(import.meta.dirname, 'checksum-reader.py'), mountpoint, '4']
  const child = spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => { text += part })
  const ended = new Promise<number | null>((resolve) => { child.on('close', resolve) })
  child.stdin.end(JSON.stringify(digests))
  const status = await ended
  if (status !== 0) throw new Error(`the reader ended with ${status}`)
  return JSON.parse(text) as Report // SAFETY: checksum-reader.py writes one
}

function noise(seed: string, length: number): Buffer {
  return createCipheriv('aes-128-ctr', createHash('sha256').update(seed).digest().subarray(0, 16), Buffer.alloc(16)).update(Buffer.alloc(length))
}

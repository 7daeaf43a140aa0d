// What the benches of serve/ share: an image made from a tree, daemons (ours and, given NYDUS_PEER_NYDUSD, upstream's) on it in turn, their CPU time,
// page caches dropped or hot. Needs root.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const ROOT = path.resolve(import.meta.dirname, '../..')
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)

export interface Server { readonly name: 'ours' | 'upstream'; readonly program: string; readonly args: readonly string[] }

/** Ours, and upstream's when NYDUS_PEER_NYDUSD names it. */
export const servers: readonly Server[] = [
  { name: 'ours', program: path.join(ROOT, 'bin/nydusd'), args: [] },
  ...(process.env['NYDUS_PEER_NYDUSD'] === undefined ? [] : [{ name: 'upstream' as const, program: process.env['NYDUS_PEER_NYDUSD'], args: ['--rlimit-nofile', '0'] }]),
]

export class Stage implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'nydus-bench-'))
  readonly mountpoint = path.join(this.path, 'mnt')
  readonly bootstrap = path.join(this.path, 'boot')

  /** Builds an image of BENCH_TREE, or of what `makeTree` puts into a directory. */
  constructor(makeTree: (directory: string) => void) {
    mkdirSync(this.mountpoint)
    const given = process.env['BENCH_TREE']
    const tree = given ?? path.join(this.path, 'tree')
    if (given === undefined) {
      mkdirSync(tree)
      makeTree(tree)
    }
    mkdirSync(path.join(this.path, 'blobs'))
    execFileSync(path.join(ROOT, 'bin/nydus-image'), ['create', '--bootstrap', this.bootstrap, '--blob-dir', path.join(this.path, 'blobs'), '--compressor', 'lz4_block', tree], { stdio: 'ignore' })
  }

  /** Writes the configuration for `server`, with a cache directory of its own; its path. */
  config(server: Server): string {
    const config = path.join(this.path, `${server.name}.json`)
    writeFileSync(config, JSON.stringify({
      device: { backend: { type: 'localfs', config: { dir: path.join(this.path, 'blobs') } }, cache: { type: 'blobcache', config: { work_dir: path.join(this.path, `cache-${server.name}`) } } },
      mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false },
    }))
    return config
  }

  /** Starts `server`, calls `use` with its process id, ends it. */
  serve<T>(server: Server, use: (pid: number) => T): T {
    const config = this.config(server)
    const daemon = spawn(server.program, ['--bootstrap', this.bootstrap, '--config', config, '--mountpoint', this.mountpoint, ...server.args], { stdio: 'ignore' })
    try {
      waitFor(() => isMounted(this.mountpoint))
      return use(daemon.pid!)
    } finally {
      daemon.kill('SIGTERM')
      waitFor(() => !isMounted(this.mountpoint))
    }
  }

  [Symbol.dispose](): void {
    if (isMounted(this.mountpoint)) execFileSync('umount', ['-l', this.mountpoint])
    rmSync(this.path, { recursive: true, force: true })
  }
}

export interface Sample { readonly wallMs: number; readonly cpuMs: number }

/** Runs a shell command in the mount; its time and the CPU time that the daemon spent on it. */
export function measure(pid: number, mountpoint: string, command: string): Sample {
  const before = cpuMs(pid)
  const from = performance.now()
  execFileSync('sh', ['-c', command], { cwd: mountpoint, stdio: ['ignore', 'ignore', 'ignore'] })
  return { wallMs: performance.now() - from, cpuMs: cpuMs(pid) - before }
}

export function dropCaches(): void {
  execFileSync('sh', ['-c', 'sync; echo 3 > /proc/sys/vm/drop_caches'])
}

/** `BENCH_ROUNDS` rounds (default 3), the servers in turn within each; `run` names its samples. Prints JSON with medians, spreads and ratios. */
export function compare(bench: string, stage: Stage, run: (pid: number) => Record<string, Sample>): void {
  const samples = new Map<string, Map<string, Sample[]>>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const server of servers) {
      for (const [name, sample] of Object.entries(stage.serve(server, run))) {
        const byServer = samples.get(name) ?? new Map<string, Sample[]>()
        samples.set(name, byServer)
        byServer.set(server.name, [...byServer.get(server.name) ?? [], sample])
      }
    }
  }
  const results = [...samples].map(([name, byServer]) => {
    const of = (key: keyof Sample): Record<string, object> => Object.fromEntries([...byServer].map(([server, list]) => [server, summary(list.map((sample) => sample[key]))]))
    const ratio = (key: keyof Sample): object => {
      const [ours, theirs] = ['ours', 'upstream'].map((server) => median(byServer.get(server)?.map((sample) => sample[key]) ?? []))
      return theirs === undefined || theirs === 0 ? {} : { [`${key}Ratio`]: Number((ours! / theirs).toFixed(2)) }
    }
    return { name, wallMs: of('wallMs'), cpuMs: of('cpuMs'), ...ratio('wallMs'), ...ratio('cpuMs') }
  })
  process.stdout.write(`${JSON.stringify({ bench, node: process.version, rounds: ROUNDS, peer: process.env['NYDUS_PEER_NYDUSD'] ?? 'none: compare with reference figures', results }, null, 2)}\n`)
}

/** Waits without the event loop: a bench has nothing else to do. */
export function waitFor(condition: () => boolean): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4))
  for (const end = performance.now() + 30_000; !condition(); Atomics.wait(sleeper, 0, 0, 2)) if (performance.now() > end) throw new Error('waited for 30 s')
}

export function apiReady(socket: string): boolean {
  return existsSync(socket) && spawnSync('curl', ['-sSf', '--unix-socket', socket, 'http://localhost/api/v1/daemon'], { stdio: 'ignore' }).status === 0
}

export function isMounted(mountpoint: string): boolean {
  return existsSync(mountpoint) && readFileSync('/proc/self/mounts', 'latin1').includes(` ${mountpoint} `)
}

export function summary(values: readonly number[]): { median: number; min: number; max: number } {
  const round = (value: number): number => Math.round(value * 10) / 10
  return { median: round(median(values) ?? 0), min: round(Math.min(...values)), max: round(Math.max(...values)) }
}

function median(values: readonly number[]): number | undefined {
  return [...values].sort((a, b) => a - b)[values.length >> 1]
}

/** User and system time of a process. SPEC: proc_pid_stat(5) fields 14 and 15, in ticks of 10 ms. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}


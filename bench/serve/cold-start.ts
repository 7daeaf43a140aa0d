// One cold start: from nothing on the host to a program's first answer, with everything behind a delaying proxy in front of a registry.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import { dropCaches, isMounted, type Server } from './stage.ts'

/** What is run in the image. */
export type Workload = 'next' | 'python'

/** The line between host and registry, as bench/tools/rtt_proxy.py takes it. */
export interface Line { readonly name: string; readonly delay_ms: number; readonly rate: number; readonly slow_start: boolean }

export interface ColdStart {
  readonly server: Server
  /** `repository:tag` in the registry. */
  readonly image: string
  readonly workload: Workload
  readonly line: Line
  /** Paths to prefetch, one a line. */
  readonly prefetchFiles?: string | undefined
  /** More of the daemon's configuration. */
  readonly config?: object | undefined
  /** Called when the daemon is mounted, and at the end while it still runs. */
  readonly begin?: (apiSocket: string) => void
  readonly before?: (apiSocket: string) => Promise<void>
}

export interface ColdStartResult {
  readonly totalSeconds: number
  readonly mountedSeconds: number
  readonly requests: number
  readonly blobMiB: number
  readonly pssMiB: number
  readonly peakOpen: number
  readonly cpuSeconds: number
}

/** What a container would have. Debian's numpy finds its BLAS through an alternative that unpacked packages do not set up. */
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/bin', NEXT_TELEMETRY_DISABLED: '1', LD_LIBRARY_PATH: '/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack' }
const ANSWER_TIMEOUT_MS = 120_000
const WEB_PORT = 13_579

/** The proxy; settings and counters through its control socket. */
export class LineProxy implements Disposable {
  readonly address: string
  readonly #child: ChildProcess
  readonly #control: string

  private constructor(child: ChildProcess, address: string, control: string) {
    this.#child = child
    this.address = address
    this.#control = control
  }

  static async start(registry: string, port = 15_501): Promise<LineProxy> {
    const control = path.join(mkdtempSync(path.join(tmpdir(), 'nydus-proxy-')), 'control')
    const child = spawn('python3', [path.join(import.meta.dirname, '../tools/rtt_proxy.py'), '--listen', `127.0.0.1:${port}`, '--upstream', registry, '--control', control], { stdio: ['ignore', 'inherit', 'inherit'] })
    const proxy = new LineProxy(child, `127.0.0.1:${port}`, control)
    for (let i = 0; i < 200 && !existsSync(control); i++) await delay(20)
    return proxy
  }

  /** One line of JSON to the proxy, and its answer. */
  async ask(question: object): Promise<Record<string, unknown>> {
    const socket = connect(this.#control)
    socket.write(`${JSON.stringify(question)}\n`)
    let text = ''
    for await (const part of socket.setEncoding('utf8')) text += part
    return JSON.parse(text)
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
    rmSync(path.dirname(this.#control), { recursive: true, force: true })
  }
}

/** Runs it once. Needs root. */
export async function coldStart(proxy: LineProxy, { server, image, workload, line, prefetchFiles, config = {}, begin, before }: ColdStart): Promise<ColdStartResult> {
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-cold-'))
  const at = (name: string): string => path.join(directory, name)
  for (const name of ['mnt', 'upper', 'work', 'root']) mkdirSync(at(name))
  const repository = image.split(':')[0]!
  writeFileSync(at('config.json'), JSON.stringify({
    device: {
      backend: { type: 'registry', config: { scheme: 'http', host: proxy.address, repo: repository, timeout: 30, connect_timeout: 5, retry_limit: 2 } },
      cache: { type: 'blobcache', config: { work_dir: at('cache') } },
    },
    mode: 'direct', digest_validate: false, enable_xattr: true, fs_prefetch: { enable: false }, ...config,
  }))
  if (prefetchFiles !== undefined) writeFileSync(at('prefetch'), prefetchFiles)
  mkdirSync(at('cache'))
  dropCaches()
  const { name: _, ...settings } = line
  await proxy.ask({ set: settings })
  await proxy.ask({ stats: true, reset: true })
  let daemon: ChildProcess | undefined
  try {
    const from = performance.now()
    writeFileSync(at('boot'), await pullBootstrap(proxy.address, image))
    daemon = spawn(server.program, [
      '--bootstrap', at('boot'), '--config', at('config.json'), '--mountpoint', at('mnt'), '--apisock', at('api.sock'), '--log-level', 'warn', '--log-file', at('log'),
      ...(prefetchFiles === undefined ? [] : ['--prefetch-files', at('prefetch')]), ...server.args,
    ], { stdio: 'ignore' })
    while (!isMounted(at('mnt'))) await delay(1)
    const mounted = performance.now()
    if (begin !== undefined) {
      while (!existsSync(at('api.sock'))) await delay(1)
      begin(at('api.sock'))
    }
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=${at('mnt')},upperdir=${at('upper')},workdir=${at('work')}`, at('root')])
    for (const [type, to] of [['proc', 'proc'], ['devtmpfs', 'dev']] as const) execFileSync('mount', ['-t', type, type, at(`root/${to}`)])
    await run(workload, at('root'))
    const until = performance.now()
    const stats = await proxy.ask({ stats: true })
    await before?.(at('api.sock'))
    return {
      totalSeconds: (until - from) / 1000, mountedSeconds: (mounted - from) / 1000, requests: Number(stats['blob_gets']), blobMiB: Number(stats['blob_bytes']) / 2 ** 20,
      pssMiB: pssOf(daemon.pid!), peakOpen: Number(stats['peak_open']), cpuSeconds: cpuOf(daemon.pid!),
    }
  } finally {
    for (const mount of ['root/dev', 'root/proc', 'root']) if (isMounted(at(mount))) execFileSync('umount', ['-l', at(mount)])
    daemon?.kill('SIGTERM')
    for (let i = 0; i < 500 && daemon?.exitCode === null && daemon.signalCode === null; i++) await delay(10)
    daemon?.kill('SIGKILL')
    if (isMounted(at('mnt'))) execFileSync('umount', ['-l', at('mnt')])
    if (process.env['KEEP_LOG'] !== undefined && existsSync(at('log'))) process.stderr.write(readFileSync(at('log')))
    rmSync(directory, { recursive: true, force: true })
  }
}

async function run(workload: Workload, root: string): Promise<void> {
  if (workload === 'python') {
    const child = spawn('/usr/sbin/chroot', [root, '/usr/bin/python3', '/srv/py/main.py'], { stdio: ['ignore', 'ignore', 'inherit'], env: ENVIRONMENT })
    const code = await new Promise((resolve) => child.on('close', resolve))
    if (code !== 0) throw new Error(`the program ended with ${String(code)}`)
    return
  }
  const child = spawn('/usr/sbin/chroot', [root, '/bin/sh', '-c', `cd /srv/app && exec /usr/bin/node node_modules/next/dist/bin/next start -p ${WEB_PORT} -H 127.0.0.1`], { stdio: ['ignore', 'ignore', 'inherit'], env: ENVIRONMENT, detached: true })
  const closed = new Promise((resolve) => child.on('close', resolve))
  try {
    for (const end = Date.now() + ANSWER_TIMEOUT_MS; !(await answers()); await delay(5)) if (Date.now() > end || child.exitCode !== null) throw new Error('no page')
  } finally {
    process.kill(-child.pid!, 'SIGKILL')
    await closed
  }
}

function answers(): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request({ host: '127.0.0.1', port: WEB_PORT, path: '/', agent: false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode === 200)).on('error', () => resolve(false))
    })
    asked.on('error', () => resolve(false)).end()
  })
}

/** Manifest and bootstrap layer through the proxy: what any snapshotter does. */
async function pullBootstrap(host: string, image: string): Promise<Uint8Array> {
  const [repository, tag] = image.split(':')
  const manifest = JSON.parse((await get(host, `/v2/${repository}/manifests/${tag}`, 'application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.v2+json')).toString())
  const layer = manifest.layers.at(-1).digest
  const tar = gunzipSync(await get(host, `/v2/${repository}/blobs/${layer}`, '*/*'))
  for (let offset = 0; offset < tar.length;) {
    const name = tar.subarray(offset, offset + 100).toString('latin1').replace(/\0.*$/, '')
    const size = Number.parseInt(tar.subarray(offset + 124, offset + 136).toString('latin1'), 8)
    if (name.endsWith('image.boot')) return tar.subarray(offset + 512, offset + 512 + size)
    offset += 512 + Math.ceil(size / 512) * 512
  }
  throw new Error('no bootstrap in the last layer')
}

function get(host: string, url: string, accept: string): Promise<Buffer> {
  const [hostname, port] = host.split(':')
  return new Promise((resolve, reject) => {
    request({ host: hostname, port, path: url, headers: { accept } }, (response) => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part)).on('end', () => (response.statusCode === 200 ? resolve(Buffer.concat(parts)) : reject(new Error(`${url}: ${response.statusCode}`))))
    }).on('error', reject).end()
  })
}

function pssOf(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1] ?? 0) / 1024
}

/** SPEC: proc_pid_stat(5) fields 14 and 15, in ticks of 10 ms. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

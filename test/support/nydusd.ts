// Starts bin/nydusd for a test and leaves nothing behind: no process, no mount, no directory.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { VECTORS } from './expect.ts'

const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusd')
/** LIMIT: a start takes a fifth of a second; this bounds a broken one on a busy machine. */
const START_MS = 30_000

/** A directory of its own with `mnt` and `cache` in it; unmounts whatever lies on `mnt` at its end. */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'nydus-mount-'))
  readonly mountpoint = path.join(this.path, 'mnt')
  readonly cache = path.join(this.path, 'cache')
  readonly socket = path.join(this.path, 'api.sock')

  constructor() {
    mkdirSync(this.mountpoint)
  }

  /** A configuration file for blobs in `blobs` with this scratch's cache. */
  config(blobs = path.join(VECTORS, 'blobs'), change: object = {}): string {
    const file = path.join(this.path, 'config.json')
    writeFileSync(file, JSON.stringify({
      device: { backend: { type: 'localfs', config: { dir: blobs } }, cache: { type: 'blobcache', config: { work_dir: this.cache } } },
      mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false }, ...change,
    }))
    return file
  }

  /** Whether anything is mounted on `mnt`, by the kernel's list (a dead mount counts). */
  isMounted(): boolean {
    return readFileSync('/proc/self/mounts', 'latin1').includes(` ${this.mountpoint} `)
  }

  [Symbol.dispose](): void {
    while (this.isMounted()) execFileSync('umount', ['-l', this.mountpoint])
    rmSync(this.path, { recursive: true, force: true })
  }
}

export interface Ended { readonly status: number | null; readonly signal: NodeJS.Signals | null; readonly stderr: string }

export interface RunningDaemon extends AsyncDisposable {
  readonly child: ChildProcess
  readonly pid: number
  readonly ended: Promise<Ended>
  /** One request to the API. */
  ask(method: string, url: string, body?: string): Promise<{ status: number; body: unknown }>
}

/** Runs nydusd to its end: for refusals, help and versions. */
export async function runNydusd(args: readonly string[], { timeoutMs = START_MS }: { readonly timeoutMs?: number } = {}): Promise<Ended & { readonly stdout: string }> {
  const child = spawn(PROGRAM, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' })
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text })
  return { ...await endOf(child), stdout }
}

/** Starts nydusd on `scratch.mountpoint` (or what `where` says instead, another transport's words, or `argv` of all of them) and waits until its API answers RUNNING (or another `state`). Throws with its output when it ends before. */
export async function startNydusd(scratch: Scratch, args: readonly string[], { env = {}, socket = scratch.socket, state = 'RUNNING', program = PROGRAM, where = ['--mountpoint', scratch.mountpoint], argv = [...where, '--apisock', socket, ...args] }: {
  readonly env?: NodeJS.ProcessEnv; readonly socket?: string; readonly state?: string; readonly program?: string; readonly where?: readonly string[]; readonly argv?: readonly string[]
} = {}): Promise<RunningDaemon> {
  const child = spawn(program, argv, {
    stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env },
  })
  const ended = endOf(child)
  let end: Ended | undefined
  void ended.then((value) => { end = value })
  const ask: RunningDaemon['ask'] = (method, url, body) => askSocket(socket, method, url, body)
  const deadline = Date.now() + START_MS
  while (!(existsSync(socket) && await isIn(state, ask))) {
    if (end !== undefined) throw new Error(`nydusd ended: ${JSON.stringify(end)}`)
    if (Date.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error('nydusd does not start')
    }
    await pause(10)
  }
  return {
    child, pid: child.pid!, ended, ask,
    async [Symbol.asyncDispose]() {
      if (end === undefined) {
        child.kill('SIGTERM')
        await Promise.race([ended, pause(10_000)])
        child.kill('SIGKILL')
      }
      await ended
    },
  }
}

/** Resolves after `ms`. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Polls until `condition` holds. Throws after `ms`. */
export async function eventually(condition: () => boolean | Promise<boolean>, what: string, ms = 10_000): Promise<void> {
  for (const end = Date.now() + ms; !(await condition()); await pause(20)) if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
}

function endOf(child: ChildProcess): Promise<Ended> {
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { stderr += text })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status, signal) => resolve({ status, signal, stderr }))
  })
}

async function isIn(state: string, ask: RunningDaemon['ask']): Promise<boolean> {
  try {
    const { body } = await ask('GET', '/api/v1/daemon')
    return typeof body === 'object' && body !== null && 'state' in body && body.state === state
  } catch {
    return false // not listening yet
  }
}

/** Metrics for Prometheus are text. */
function isJson(type: string | undefined): boolean {
  return type === undefined || type.startsWith('application/json')
}

function askSocket(socketPath: string, method: string, url: string, body: string | undefined): Promise<{ status: number; body: unknown }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path: url, agent: false, timeout: 5000 }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => { text += part })
        .on('end', () => resolve({ status: response.statusCode ?? 0, body: text === '' ? undefined : isJson(response.headers['content-type']) ? JSON.parse(text) : text }))
    })
    sent.on('timeout', () => sent.destroy(new Error('the API does not answer')))
    sent.on('error', reject).end(body)
  })
}

// A nydusd as a child: started, waited for until it serves, ended with its mount. SPEC: spec-surface.md B.2, C.5 (argv and readiness as upstream's).

import { spawn, type ChildProcess } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { request } from 'node:http'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { CodedError, foreignText } from '../core/errors.ts'
import { OWNER_VARIABLE } from '../core/owner.ts'
import { native } from '../native/load.ts'

export interface NydusdOptions {
  /** Program to run, and arguments that come before nydusd's own. */
  readonly command: readonly [file: string, ...argv: string[]]
  readonly config: string
  readonly bootstrap: string
  /** Made when it is missing. */
  readonly mountpoint: string
  /** Short enough for a Unix socket's name: 107 bytes. */
  readonly apiSocket: string
  readonly env: NodeJS.ProcessEnv
  readonly signal: AbortSignal
}

/** Running and mounted; disposed, unmounted and ended. */
export interface RunningNydusd extends AsyncDisposable {
  readonly pid: number
  /** Resolves when the daemon ends by itself: somebody unmounted, or it died. */
  readonly ended: Promise<void>
}

/** COMPAT: upstream's patience. */
const START_TIMEOUT_MS = 30_000
const POLL_MS = 20
/** LIMIT: how long a daemon may take to unmount before it is killed. */
const STOP_TIMEOUT_MS = 10_000
/** SPEC: umount2(2). */
const MNT_DETACH = 2
const MAX_MESSAGE = 4096

/** Starts a daemon and waits for RUNNING. SERVE_MOUNT with what it said when it ends before, or takes longer than 30 s. */
export async function startNydusd(options: NydusdOptions): Promise<RunningNydusd> {
  const { command: [file, ...argv], config, bootstrap, mountpoint, apiSocket, env, signal } = options
  signal.throwIfAborted()
  await mkdir(mountpoint, { recursive: true })
  await rm(apiSocket, { force: true })
  const child = spawn(file, [...argv, '--config', config, '--mountpoint', mountpoint, '--bootstrap', bootstrap, '--apisock', apiSocket, '--log-level', 'warn'], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env: { ...env, [OWNER_VARIABLE]: '3' }, // killed, we let go of that pipe, and the daemon ends
    detached: true, // Ctrl-C is for us: the daemon ends when we say so, after the last reader
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => { said = `${said}${String(data)}`.slice(-MAX_MESSAGE) })
  const ended = new Promise<void>((resolve) => { child.on('close', () => resolve()) })
  const failed = new Promise<never>((_, reject) => {
    child.on('error', (cause) => reject(new CodedError('SERVE_MOUNT', `${file} cannot be run`, { file }, { cause })))
    child.on('close', (code, name) => reject(new CodedError('SERVE_MOUNT', `nydusd ended with ${name ?? code} before it served: ${foreignText(said.trim(), 1000)}`, { exitCode: code ?? -1 })))
  })
  failed.catch(() => {}) // of interest only until it runs
  try {
    await Promise.race([failed, isRunning(apiSocket, signal)])
  } catch (error) {
    await stop(child, { ended, mountpoint })
    throw error
  }
  return { pid: child.pid!, ended, [Symbol.asyncDispose]: () => stop(child, { ended, mountpoint }) }
}

async function isRunning(apiSocket: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS
  while (performance.now() < deadline) {
    if (await stateOf(apiSocket) === 'RUNNING') return
    await delay(POLL_MS, undefined, { signal })
  }
  throw new CodedError('SERVE_MOUNT', `nydusd does not serve after ${START_TIMEOUT_MS / 1000} s`)
}

/** The daemon's state, or undefined while nobody answers. */
function stateOf(socketPath: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const call = request({ socketPath, path: '/api/v1/daemon', timeout: 1000 }, (response) => {
      let text = ''
      response.on('data', (data) => { text += String(data) })
      response.on('end', () => resolve(/"state"\s*:\s*"([A-Z]+)"/.exec(text)?.[1]))
      response.on('error', () => resolve(undefined))
    })
    call.on('error', () => resolve(undefined))
    call.on('timeout', () => call.destroy())
    call.end()
  })
}

/** SIGTERM unmounts; a daemon that does not is killed and its mount detached, so that nothing stays. */
async function stop(child: ChildProcess, { ended, mountpoint }: { ended: Promise<void>; mountpoint: string }): Promise<void> {
  if (child.pid === undefined) return
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGTERM')
    const timeout = new AbortController()
    const inTime = await Promise.race([ended.then(() => true), delay(STOP_TIMEOUT_MS, false, { signal: timeout.signal }).catch(() => false)])
    timeout.abort()
    if (!inTime) {
      child.kill('SIGKILL')
      await ended
    }
  }
  // EINVAL when there is no mount any more, as it should be
  native().umount(Buffer.from(path.resolve(mountpoint)), MNT_DETACH)
}

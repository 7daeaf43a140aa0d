// The program under test, and places that are gone afterwards.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export const ROOT = path.resolve(import.meta.dirname, '../..')
export const NYDUSIFY = path.join(ROOT, 'bin/nydusify')

export interface Ran { readonly code: number | null; readonly stdout: string; readonly stderr: string }

/** Runs nydusify to its end. */
export function nydusify(argv: readonly string[], { input, cwd, env }: { input?: string; cwd?: string; env?: Record<string, string> } = {}): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, [NYDUSIFY, ...argv], { encoding: 'utf8', input, cwd, env: { ...process.env, ...env } })
  return { code: status, stdout, stderr }
}

/** Disposed, it has ended: by SIGTERM if it still ran. */
export interface Started extends AsyncDisposable { readonly child: ChildProcess; readonly ended: Promise<Ran & { readonly signal: string | null }>; text(): string }

/** Starts nydusify; `text` is what it said so far. */
export function startNydusify(argv: readonly string[], { env }: { env?: Record<string, string> } = {}): Started {
  const child = spawn(process.execPath, [NYDUSIFY, ...argv], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (data) => { stdout += data })
  child.stderr.on('data', (data) => { stderr += data })
  const ended = new Promise<Ran & { signal: string | null }>((resolve) => { child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr })) })
  return { child, ended, text: () => stdout + stderr, [Symbol.asyncDispose]: async () => {
    child.kill('SIGTERM')
    await ended
  } }
}

/** A directory that is gone after the test. */
export function temporary(name: string): { readonly path: string; at(...more: string[]): string } & Disposable {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), `nydusify-test-${name}-`))
  return { path: directory, at: (...more) => path.join(directory, ...more), [Symbol.dispose]: () => fs.rmSync(directory, { recursive: true, force: true }) }
}

export async function until(what: string, holds: () => boolean, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

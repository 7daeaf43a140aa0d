// docker-credential-NAME get: a program that knows a registry's user and secret.
// SPEC: docker/docker-credential-helpers README "Development": host on stdin, {Username, Secret} on stdout, exit 1 with a text when unknown.

import { spawn } from 'node:child_process'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, foreignText } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import type { Credentials } from './credentials.ts'

/** LIMIT: helpers that ask a keychain take milliseconds; one that waits for a person must not hang a build. */
const HELPER_TIMEOUT_MS = 15_000
/** LIMIT: an answer is a user and a token; cloud tokens reach a few KiB. */
const MAX_ANSWER = 64 * KiB

/** A successful `get` of a user called this carries an identity token. */
const TOKEN_USER = '<token>'

/**
 * Asks the helper `name` for `server`. Undefined when it knows none, or is not installed (public images must stay pullable; the event
 * `registry:credentials:skipped` says so). REGISTRY_DENIED when it fails otherwise; what it printed on stdout never enters a message.
 */
export async function askHelper(name: string, server: string, options: { env: NodeJS.ProcessEnv; signal: AbortSignal }): Promise<Credentials | undefined> {
  const program = `docker-credential-${name}`
  // the name comes from a file that tools write; it becomes a program to run
  if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new CodedError('CONFIG_INVALID', `credential helper name "${foreignText(name, 60)}" is no file name`)
  const { code, stdout, stderr } = await run(program, server, options)
  if (code === 'missing') {
    publish('registry:credentials:skipped', { host: server, helper: program, reason: 'not installed' })
    return undefined
  }
  if (code !== 0) {
    const said = foreignText(`${stdout} ${stderr}`.trim())
    if (/credentials not found|not found in native keychain/i.test(said)) return undefined
    throw new CodedError('REGISTRY_DENIED', `${program} failed for ${server} (exit ${code}): ${foreignText(stderr.trim())}`, { helper: program })
  }
  return parseAnswer(stdout, program, server)
}

function parseAnswer(stdout: string, program: string, server: string): Credentials | undefined {
  let answer: unknown
  try {
    answer = JSON.parse(stdout)
  } catch {
    throw new CodedError('REGISTRY_DENIED', `${program} answered no JSON for ${server}`, { helper: program }) // without cause: it would quote the secret
  }
  if (typeof answer !== 'object' || answer === null || !('Secret' in answer) || typeof answer.Secret !== 'string') {
    throw new CodedError('REGISTRY_DENIED', `${program} answered without a secret for ${server}`, { helper: program })
  }
  const username = 'Username' in answer && typeof answer.Username === 'string' ? answer.Username : ''
  if (username === TOKEN_USER) return { kind: 'identity', token: answer.Secret }
  return username === '' ? undefined : { kind: 'password', username, password: answer.Secret }
}

interface Outcome { readonly code: number | 'missing'; readonly stdout: string; readonly stderr: string }

function run(program: string, input: string, { env, signal }: { env: NodeJS.ProcessEnv; signal: AbortSignal }): Promise<Outcome> {
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    const output = { stdout: '', stderr: '' }
    const give = (error: unknown) => {
      child.kill('SIGKILL')
      // a grandchild may hold the pipes open: they must not keep this process alive
      child.stdout.destroy()
      child.stderr.destroy()
      settle()
      reject(error)
    }
    const leave = () => give(signal.reason)
    const timer = setTimeout(() => give(new CodedError('REGISTRY_DENIED', `${program} did not answer within ${HELPER_TIMEOUT_MS / 1000} s`, { helper: program })), HELPER_TIMEOUT_MS)
    const settle = () => { clearTimeout(timer); signal.removeEventListener('abort', leave) }
    signal.addEventListener('abort', leave, { once: true })
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text
        if (output[name].length > MAX_ANSWER) give(new CodedError('REGISTRY_DENIED', `${program} answered more than ${MAX_ANSWER} bytes`, { helper: program }))
      })
    }
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle()
      // EACCES: so the search ends when it comes to a directory of PATH that is not for us, as root's in an ordinary user's
      if (error.code === 'ENOENT' || error.code === 'EACCES') resolve({ code: 'missing', ...output })
      else reject(new CodedError('REGISTRY_DENIED', `${program} cannot be run: ${error.code}`, { helper: program }, { cause: error }))
    })
    child.on('close', (code) => { settle(); resolve({ code: code ?? -1, ...output }) })
    child.stdin.on('error', () => {}) // EPIPE: it did not read its input; its exit status tells
    child.stdin.end(input)
  })
}

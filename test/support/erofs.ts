// What the tests of kernel EROFS share: a scratch whose devices lie in it and are gone after it, and readers that tell right bytes from errors.

import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { expect } from 'vitest'
import { expectOfCase, VECTORS } from './expect.ts'
import { erofsNames } from '../../src/serve/erofs/names.ts'
import { eventually, type RunningDaemon, Scratch } from './nydusd.ts'

export const bootOf = (name: string): string => path.join(VECTORS, name, 'image.boot')
export const filesOf = (name: string) => expectOfCase(name)!.filter(({ type, size, path: file }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(file))
export const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')
export const dropCaches = (): void => writeFileSync('/proc/sys/vm/drop_caches', '3')

/** A scratch whose devices lie in it, and are gone after it. */
export class ErofsScratch extends Scratch {
  readonly run = path.join(this.path, 'run')
  readonly blobs = path.join(this.path, 'blobs')

  constructor() {
    super()
    cpSync(path.join(VECTORS, 'blobs'), this.blobs, { recursive: true })
  }

  /** Directories of devices that are mounted. */
  devices(): string[] {
    return readFileSync('/proc/self/mounts', 'latin1').split('\n').map((line) => line.split(' ')[1] ?? '').filter((target) => target.startsWith(`${this.run}/`))
  }

  /** What the journal says is mounted; undefined where there is none. */
  journal(): unknown {
    const name = existsSync(this.run) ? readdirSync(this.run).find((file) => file.endsWith('.json')) : undefined
    return name === undefined ? undefined : JSON.parse(readFileSync(path.join(this.run, name), 'utf8')).mounts
  }

  args(name: string, ...more: readonly string[]): string[] {
    return ['erofs', '--bootstrap', bootOf(name), '--config', this.config(this.blobs), '--run-dir', this.run, ...more]
  }

  /** The processes that hold fanotify's descriptors, by what they call themselves. */
  holders(): { readonly keeper: readonly number[]; readonly guardian: readonly number[] } {
    const ours = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => textOf(`/proc/${pid}/cmdline`).includes(`\0${this.run}/keeper-`))
    const called = (name: string) => ours.filter((pid) => textOf(`/proc/${pid}/comm`).trim() === name)
    return { keeper: called('nydusd-keeper'), guardian: called('nydusd-guardian') }
  }

  /** How many files the keeper has marked. */
  marks(): number {
    const [keeper] = this.holders().keeper
    if (keeper === undefined) return 0
    return readdirSync(`/proc/${keeper}/fdinfo`).map((fd) => textOf(`/proc/${keeper}/fdinfo/${fd}`).split('\n').filter((line) => line.startsWith('fanotify ino:')).length).reduce((a, b) => Math.max(a, b), 0)
  }

  /** Kills processes in the same instant, as far as that can be: none hears of the others. */
  async killAtOnce(...pids: readonly number[]): Promise<void> {
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const pid of pids) kill(pid, signal)
    await eventually(() => pids.every((pid) => !existsSync(`/proc/${pid}/maps`) || textOf(`/proc/${pid}/stat`).includes(') Z ')), 'they are gone')
  }

  /** Makes the journal one of an earlier boot of this machine. */
  changeBoot(): void {
    const { journal } = erofsNames(this.run, this.mountpoint)
    writeFileSync(journal, readFileSync(journal, 'utf8').replace(/"bootId":"[^"]*"/, '"bootId":"00000000-0000-0000-0000-000000000000"'))
  }

  /** A keeper that replaces a lost guardian so many times, for the daemon of this scratch. */
  startKeeper(replacements: number, program = path.resolve(import.meta.dirname, '../../build/nydusd-keeper')): void {
    mkdirSync(this.run, { mode: 0o700 })
    execFileSync('setsid', ['-f', program, erofsNames(this.run, this.mountpoint).keeper, String(replacements)], { stdio: 'ignore' })
  }

  override [Symbol.dispose](): void {
    while (this.isMounted()) execFileSync('umount', ['-l', this.mountpoint])
    const { keeper, guardian } = this.holders()
    for (const pid of [...guardian, ...keeper]) kill(pid, 'SIGSTOP') // neither is to replace the other
    for (const pid of [...guardian, ...keeper]) kill(pid, 'SIGKILL')
    for (const target of this.devices()) execFileSync('umount', ['-l', target])
    super[Symbol.dispose]()
  }
}

const KEEPER = path.resolve(import.meta.dirname, '../../native/keeper')

/** A keeper that allows where it should deny, and cuts nothing, built below `directory`. */
export function harmfulKeeper(directory: string): string {
  const changes: readonly (readonly [file: string, code: string, replacement: string])[] = [
    ['questions.c', 'DENY_EIO = FAN_DENY | EIO << 24', 'DENY_EIO = FAN_ALLOW'], ['questions.c', 'error == 0 && !journal->alone ? FAN_ALLOW : DENY_EIO', 'FAN_ALLOW'], ['main.c', '  files_cut();\n  unlink(', '  unlink('],
  ]
  cpSync(KEEPER, path.join(directory, 'keeper'), { recursive: true })
  for (const [file, code, replacement] of changes) {
    const source = path.join(directory, 'keeper', file)
    const text = readFileSync(source, 'utf8')
    expect(text.split(code).length, code).toBe(2)
    writeFileSync(source, text.replace(code, replacement))
  }
  const program = path.join(directory, 'nydusd-keeper')
  execFileSync('sh', ['-c', `cc -std=gnu11 -O1 -o '${program}' '${directory}'/keeper/*.c -pthread`])
  return program
}

/** Reads all files of the mounted image: fails for a wrong byte, counts errors. */
export function readAll(mountpoint: string, name: string): { right: number; failed: number } {
  const counts = { right: 0, failed: 0 }
  for (const { path: file, sha256: want } of filesOf(name)) {
    let got: string
    try {
      got = sha256(mountpoint + file)
    } catch (error) {
      expect(error).toMatchObject({ code: 'EIO' })
      counts.failed++
      continue
    }
    expect(got, file).toBe(want)
    counts.right++
  }
  return counts
}

/** LIMIT: reading a fixture takes a second; this bounds a mount that hangs. */
const READ_MS = 40_000

// Each thread takes the next file; what it finds is a line. A wrong byte is worse than anything else, so the bytes are told apart from zeros.
const READER = String.raw`
import sys,hashlib,threading,queue
todo=queue.Queue(); lock=threading.Lock()
def say(*words):
  with lock: print(*words,flush=True)
def work():
  while True:
    try: line=todo.get_nowait()
    except queue.Empty: return
    f,want=line.split("\t"); say("begin")
    try: got=hashlib.sha256(open(f,"rb").read()).hexdigest()
    except OSError as e: say("error",e.errno); continue
    say("right" if got==want else "WRONG "+f)
for line in sys.stdin.read().split("\n"): todo.put(line)
threads=[threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
for t in threads: t.start()
for t in threads: t.join()
`

/** What readers of a mount found. */
export interface Found { readonly right: number; readonly failed: number; readonly wrong: readonly string[] }

/** Threads of another process that read each of \`files\` once and compare it. */
export class FileReaders {
  readonly done: Promise<Found>
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  #lines: string[] = []

  constructor(mountpoint: string, files: readonly { readonly path: string; readonly sha256?: string | undefined }[], { threads }: { readonly threads: number }) {
    this.#child = spawn('python3', ['-c', READER, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] })
    let rest = ''
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      this.#lines.push(...lines)
    })
    const timer = setTimeout(() => this.kill(), READ_MS) // whoever waits for ever is told of what was not read
    this.#child.once('close', () => clearTimeout(timer))
    this.#child.stdin.end(files.map(({ path: file, sha256: want }) => `${mountpoint}${file}\t${want}`).join('\n'))
    this.done = new Promise((resolve) => this.#child.once('close', () => {
      const count = (word: string) => this.#lines.filter((line) => line === word).length
      const [right, failed] = [count('right'), count('error 5')]
      resolve({ right, failed, wrong: this.#lines.filter((line) => line !== 'begin' && line !== 'right' && line !== 'error 5') })
    }))
  }

  /** Files that are being read at this moment. */
  get underWay(): number {
    const begun = this.#lines.filter((line) => line === 'begin').length
    return begun - (this.#lines.length - begun)
  }

  get finished(): number {
    return this.#lines.filter((line) => line !== 'begin').length
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

/** What another process finds that reads each of `files` once: this one must not wait for itself. Fails when it does not come to an end. */
export async function readApart(mountpoint: string, files: readonly { readonly path: string; readonly sha256?: string | undefined }[], { threads = 4 } = {}): Promise<Found> {
  const readers = new FileReaders(mountpoint, files, { threads })
  const found = await readers.done
  expect(found.right + found.failed + found.wrong.length, 'files that were read').toBe(files.length)
  return found
}

/** How a mount's data arrives, as the API says it. */
export async function transportOf(daemon: RunningDaemon, mountpoint: string): Promise<unknown> {
  const { body } = await daemon.ask('GET', '/api/v1/daemon')
  return (body as { backend_collection: Record<string, { transport: unknown }> }).backend_collection[mountpoint]?.transport
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // it has ended
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return '' // it has ended
  }
}

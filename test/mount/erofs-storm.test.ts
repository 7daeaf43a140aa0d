// `nydusd erofs --fill fanotify`: the server is killed with -9 again and again while readers wait for it; the next one continues. Each byte is compared.
// EROFS_KILLS makes it longer (scripts/storm-erofs.sh). A kill counts only if the blob was incomplete and marked, and a question without an answer.

import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { ErofsScratch, FileReaders, readApart, sha256 } from '../support/erofs.ts'
import { eventually, pause, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'
import { stormImage } from '../support/storm.ts'

const KILLS = Number(process.env['EROFS_KILLS'] ?? 6)
const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusd')
/** LIMIT: a cache that is nearly full asks for nothing any more. */
const ROUNDS_A_CACHE = 10
const PHASES = ['event queued', 'written but not allowed', 'start-up', 'serving'] as const

interface File { readonly path: string; readonly sha256: string }
interface Image { readonly files: readonly File[]; readonly args: (scratch: ErofsScratch) => string[] }

function makeImage(scratch: Scratch): Image {
  const { source, args: [, bootstrap] } = stormImage(scratch, { cached: true })
  const names = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(path.join(source, name)).size > 60_000)
  return {
    files: names.map((name) => ({ path: `/${name}`, sha256: sha256(path.join(source, name)) })),
    args: (other) => ['erofs', '--bootstrap', bootstrap!, '--config', other.config(path.join(scratch.path, 'blobs')), '--run-dir', other.run, '--fill', 'fanotify'],
  }
}

/** One mount with a cache of its own, whose server dies. */
class Stage {
  server: RunningDaemon
  readonly #scratch: ErofsScratch
  readonly #args: readonly string[]

  private constructor(scratch: ErofsScratch, args: readonly string[], server: RunningDaemon) {
    this.#scratch = scratch
    this.#args = args
    this.server = server
  }

  static async start(scratch: ErofsScratch, args: readonly string[]): Promise<Stage> {
    return new Stage(scratch, args, await startNydusd(scratch, args))
  }

  /** Bytes that are in the cache. */
  get cached(): number {
    const data = readdirSync(this.#scratch.cache).find((name) => name.endsWith('.blob.data'))
    return data === undefined ? 0 : statSync(path.join(this.#scratch.cache, data)).blocks
  }

  /** Kills the server; whether that was a kill that counts: the blob is marked, and somebody waits. */
  async kill(readers: FileReaders): Promise<boolean> {
    this.server.child.kill('SIGKILL')
    await this.server.ended
    await pause(5)
    return readers.underWay > 0 && this.#scratch.marks() > 0
  }

  async restart(): Promise<void> {
    this.server = await startNydusd(this.#scratch, this.#args)
  }

  /** A server that is killed before it serves. */
  async failToStart(): Promise<void> {
    const child = spawn(PROGRAM, ['--mountpoint', this.#scratch.mountpoint, '--apisock', this.#scratch.socket, ...this.#args], { stdio: 'ignore' })
    await pause(Math.random() * 400)
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('close', resolve))
  }
}

async function strike(stage: Stage, phase: (typeof PHASES)[number], readers: () => FileReaders): Promise<{ reading: FileReaders; counts: boolean }> {
  const { child } = stage.server
  if (phase === 'event queued' || phase === 'start-up') child.kill('SIGSTOP')
  const before = stage.cached
  const reading = readers()
  if (phase === 'serving') await pause(60 + Math.random() * 40)
  else if (phase === 'written but not allowed') {
    for (const end = Date.now() + 5_000; stage.cached === before && reading.finished === 0 && Date.now() < end; await new Promise(setImmediate));
    child.kill('SIGSTOP')
    await pause(20)
  } else await eventually(() => reading.underWay > 0, 'somebody waits')
  const counts = await stage.kill(reading) && (phase !== 'written but not allowed' || stage.cached > before)
  if (phase === 'start-up') await stage.failToStart()
  return { reading, counts }
}

describe.runIf(requires.root)('nydusd erofs --fill fanotify', () => {
  it('reads right whenever its server is killed', async () => {
    using home = new Scratch()
    const image = makeImage(home)
    const counted: Record<string, number> = {}
    let kills = 0
    for (let number = 0; kills < KILLS; ) {
      using scratch = new ErofsScratch()
      const stage = await Stage.start(scratch, image.args(scratch))
      try {
        for (let round = 0; round < ROUNDS_A_CACHE && kills < KILLS; round++, number++) {
          const phase = PHASES[number % PHASES.length]!
          const files = image.files.slice(round * 3, round * 3 + 3)
          const { reading, counts } = await strike(stage, phase, () => new FileReaders(scratch.mountpoint, files, { threads: phase === 'written but not allowed' ? 1 : 3 }))
          await stage.restart()
          expect(await reading.done, phase).toEqual({ right: files.length, failed: 0, wrong: [] })
          if (counts) {
            kills++
            counted[phase] = (counted[phase] ?? 0) + 1
          }
        }
        expect(number, 'kills that do not count').toBeLessThan(KILLS * 4 + 20)
        // all there, or nearly: the mark goes, the next server looks at it, the umount begins
        expect(await readApart(scratch.mountpoint, image.files)).toEqual({ right: image.files.length, failed: 0, wrong: [] })
        await pause(Math.random() * 400)
        if (scratch.marks() > 0) counted['unmark'] = (counted['unmark'] ?? 0) + 1
        stage.server.child.kill('SIGKILL')
        await stage.server.ended
        await stage.restart()
        stage.server.child.kill('SIGTERM')
        await pause(Math.random() * 30)
        if (scratch.isMounted()) counted['umount'] = (counted['umount'] ?? 0) + 1
        stage.server.child.kill('SIGKILL')
        await stage.server.ended
        await stage.restart()
        expect(await readApart(scratch.mountpoint, image.files)).toEqual({ right: image.files.length, failed: 0, wrong: [] })
      } finally {
        await stage.server[Symbol.asyncDispose]()
      }
    }
    console.log(`erofs storm: ${kills} kills that count; in each phase: ${JSON.stringify(counted)}`)
    expect(Object.keys(counted)).toEqual(expect.arrayContaining(['event queued', 'start-up']))
  }, 120_000 + KILLS * 15_000)
})

// A daemon of a writable mount dies under load, again and again: no writer sees an error, nothing is done twice, and all is there in the end.
// STORM_ROUNDS makes the storms longer (scripts/storm.sh).

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { eventually, pause, type RunningDaemon, startNydusd } from '../support/nydusd.ts'
import { WritableScratch } from '../support/overlay.ts'
import { requires } from '../support/requires.ts'
import { stormImage, Supervised } from '../support/storm.ts'
import { Writers } from '../support/writers.ts'

const ROUNDS = Number(process.env['STORM_ROUNDS'] ?? 4)
const WRITERS = 6

/** An image whose files are the writers' (storm.ts), and the arguments that mount it for writing. */
function writableImage(scratch: WritableScratch): string[] {
  const { args } = stormImage(scratch, { cached: true })
  const config = path.join(scratch.path, 'writable.json')
  writeFileSync(config, JSON.stringify(scratch.settings()))
  return [...args.slice(0, 2), '--config', config, '--writable', '--log-file', path.join(scratch.path, 'nydusd.log')]
}

async function killServer(daemon: RunningDaemon): Promise<void> {
  const children = (): number[] => readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'latin1').trim().split(' ').filter((word) => word !== '').map(Number)
  await eventually(() => children().length === 1, 'there is a server')
  const server = children()[0]!
  process.kill(server, 'SIGKILL')
  await eventually(() => children().length === 1 && children()[0] !== server, 'there is another server', 30_000)
  await eventually(async () => JSON.stringify((await daemon.ask('GET', '/api/v1/daemon')).body).includes('"RUNNING"'), 'it serves', 30_000)
}

async function storm(scratch: WritableScratch, round: () => Promise<unknown>): Promise<Writers> {
  await using writers = await Writers.start(scratch.mountpoint, WRITERS)
  for (let number = 0; number < ROUNDS && writers.wrong.length === 0; number++) {
    await pause(50 + Math.random() * 200)
    await round()
  }
  await pause(200)
  await writers.stop()
  const repeated = readFileSync(path.join(scratch.path, 'nydusd.log'), 'utf8').split('\n').filter((line) => line.includes('serve:request:repeated'))
  console.log(`${ROUNDS} rounds, ${writers.operations} operations, answered from the journal ${repeated.filter((line) => line.includes('"done":true')).length}, begun and found out ${repeated.filter((line) => line.includes('"done":false')).length}`)
  return writers
}

describe.runIf(requires.root)('a writable mount whose server dies', () => {
  it('goes on without an error with --self-heal', async () => {
    using scratch = new WritableScratch()
    const args = writableImage(scratch)
    await using daemon = await startNydusd(scratch, ['--self-heal', ...args])
    const { wrong, operations } = await storm(scratch, () => killServer(daemon))
    expect(wrong).toEqual([])
    expect(operations).toBeGreaterThan(ROUNDS * WRITERS)
  }, 60_000 + ROUNDS * 10_000)

  it('goes on without an error with a supervisor, killed or replaced', async () => {
    using scratch = new WritableScratch()
    await using supervised = await Supervised.start(scratch, writableImage(scratch))
    let number = 0
    const { wrong, operations } = await storm(scratch, () => (++number % 2 === 0 ? supervised.upgrade() : supervised.failover()))
    expect(wrong).toEqual([])
    expect(operations).toBeGreaterThan(ROUNDS * WRITERS)
  }, 60_000 + ROUNDS * 10_000)
})

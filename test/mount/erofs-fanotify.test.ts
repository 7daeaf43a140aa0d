// `nydusd erofs --fill fanotify`: the kernel reads cache files that are filled while it asks. A reader sees verified bytes, waits, or gets EIO;
// never a zero that is not in the image.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { mountsOn } from '../../src/serve/mountpoint.ts'
import { dropCaches, ErofsScratch, FileReaders, filesOf, readAll, transportOf } from '../support/erofs.ts'
import { differences, expectOfCase, scanDirectory } from '../support/expect.ts'
import { eventually, pause, runNydusd, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'

const CASE = 'v6-rich-chunk64k'
const FANOTIFY = ['--fill', 'fanotify'] as const

describe.runIf(requires.root)('nydusd erofs --fill fanotify', () => {
  it.each(['v6-rich-zstd', 'merge-all-lists', 'only-metadata'])('shows the tree that the image has, and leaves nothing behind: %s', async (name) => {
    using scratch = new ErofsScratch()
    const daemon = await startNydusd(scratch, scratch.args(name, ...FANOTIFY))
    expect(mountsOn(scratch.mountpoint).at(-1)?.type).toBe('erofs')
    expect(await differences(expectOfCase(name)!, { walk: () => scanDirectory(scratch.mountpoint) })).toEqual([])
    expect(await transportOf(daemon, scratch.mountpoint)).toMatchObject({ requested: 'fanotify', chosen: 'fanotify', reason: 'asked for' })
    expect(scratch.devices()).toEqual([])
    daemon.child.kill('SIGTERM')
    const { status, stderr } = await daemon.ended
    expect([status, stderr.split('\n').filter((line) => /"level":"(warn|error)"/.test(line) && !line.includes('open files'))]).toEqual([0, []])
    expect([scratch.isMounted(), readdirSync(scratch.run), scratch.holders()]).toEqual([false, [], { keeper: [], guardian: [] }])
  })

  it('mounts without its blobs, reads EIO, and reads right when they are there', async () => {
    using scratch = new ErofsScratch()
    const away = `${scratch.blobs}.away`
    renameSync(scratch.blobs, away)
    mkdirSync(scratch.blobs)
    await using _daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: 0, failed: filesOf(CASE).length })
    for (const blob of readdirSync(away)) renameSync(path.join(away, blob), path.join(scratch.blobs, blob))
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
    dropCaches()
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
  })

  it('keeps readers waiting when its server is killed, and the next one answers them', async () => {
    using scratch = new ErofsScratch()
    const args = scratch.args(CASE, ...FANOTIFY)
    const first = await startNydusd(scratch, args)
    const holders = scratch.holders()
    expect([holders.keeper.length, holders.guardian.length]).toEqual([1, 1])
    first.child.kill('SIGSTOP')
    const readers = new FileReaders(scratch.mountpoint, filesOf(CASE), { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    first.child.kill('SIGKILL')
    await first.ended
    await pause(200)
    expect(readers.finished).toBe(0)
    {
      await using _next = await startNydusd(scratch, args)
      expect(await readers.done).toEqual({ right: filesOf(CASE).length, failed: 0, wrong: [] })
      expect(mountsOn(scratch.mountpoint).length).toBe(1)
      expect(scratch.holders()).toEqual(holders)
    }
    expect([scratch.isMounted(), scratch.holders()]).toEqual([false, { keeper: [], guardian: [] }])
  })

  it('goes on without an error when its keeper is killed, and then the guardian, and then both in turn', async () => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    const before = scratch.holders()
    daemon.child.kill('SIGSTOP')
    const readers = new FileReaders(scratch.mountpoint, filesOf(CASE), { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    for (const role of ['keeper', 'guardian', 'keeper', 'guardian'] as const) {
      const { [role]: [victim] } = scratch.holders()
      process.kill(victim!, 'SIGKILL')
      await eventually(() => {
        const { keeper, guardian } = scratch.holders()
        return keeper.length === 1 && guardian.length === 1 && !keeper.includes(victim!) && !guardian.includes(victim!)
      }, 'there are two holders')
    }
    expect(readers.finished).toBe(0)
    daemon.child.kill('SIGCONT')
    expect(await readers.done).toEqual({ right: filesOf(CASE).length, failed: 0, wrong: [] })
    expect(scratch.holders()).not.toEqual(before)
  })

  it('refuses a cache that cannot be marked, with the reason', async () => {
    using scratch = new ErofsScratch()
    mkdirSync(scratch.cache)
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', scratch.cache])
    try {
      const refused = await runNydusd(['--mountpoint', scratch.mountpoint, ...scratch.args(CASE, ...FANOTIFY)])
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/no pre-content events.*tmpfs/) })
      await eventually(() => scratch.holders().keeper.length === 0, 'the keeper has ended')
    } finally {
      execFileSync('umount', ['-l', scratch.cache])
    }
  })
})

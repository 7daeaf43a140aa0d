// `nydusd erofs --fill fanotify`: the kernel reads cache files that are filled while it asks. A reader sees verified bytes, waits, or gets EIO;
// never a zero that is not in the image.

import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readdirSync, renameSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { mountsOn } from '../../src/serve/mountpoint.ts'
import { dropCaches, ErofsScratch, FileReaders, filesOf, harmfulKeeper, readApart, transportOf } from '../support/erofs.ts'
import { differences, expectOfCase, scanDirectory } from '../support/expect.ts'
import { eventually, pause, runNydusd, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'

const CASE = 'v6-rich-chunk64k'
const FANOTIFY = ['--fill', 'fanotify'] as const
/** The largest of its 829 files, with most of its bytes. */
const FILES = filesOf(CASE).sort((a, b) => b.size! - a.size!).slice(0, 60)
const ALL_RIGHT = { right: FILES.length, failed: 0, wrong: [] }

describe.runIf(requires.root)('nydusd erofs --fill fanotify', { retry: 2, timeout: 90_000 }, () => {
  it.each(['v6-rich-zstd', 'merge-all-lists', 'only-metadata'])('shows the tree that the image has, and leaves nothing behind: %s', async (name) => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(name)) // auto
    expect(mountsOn(scratch.mountpoint).at(-1)?.type).toBe('erofs')
    expect(await differences(expectOfCase(name)!, { walk: () => scanDirectory(scratch.mountpoint) })).toEqual([])
    expect(await transportOf(daemon, scratch.mountpoint)).toMatchObject({ requested: 'auto', chosen: 'fanotify', reason: expect.stringContaining('both holders') })
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
    expect(await readApart(scratch.mountpoint, FILES)).toEqual({ right: 0, failed: FILES.length, wrong: [] })
    for (const blob of readdirSync(away)) renameSync(path.join(away, blob), path.join(scratch.blobs, blob))
    expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
    dropCaches()
    expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
  })

  it('keeps readers waiting when its server is killed, and the next one answers them', async () => {
    using scratch = new ErofsScratch()
    const args = scratch.args(CASE, ...FANOTIFY)
    await using first = await startNydusd(scratch, args)
    const holders = scratch.holders()
    expect([holders.keeper.length, holders.guardian.length]).toEqual([1, 1])
    first.child.kill('SIGSTOP')
    const readers = new FileReaders(scratch.mountpoint, FILES, { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    first.child.kill('SIGKILL')
    await first.ended
    await pause(200)
    expect(readers.finished).toBe(0)
    {
      await using _next = await startNydusd(scratch, args)
      expect(await readers.done).toEqual(ALL_RIGHT)
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
    const readers = new FileReaders(scratch.mountpoint, FILES, { threads: 4 })
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
    expect(await readers.done).toEqual(ALL_RIGHT)
    expect(scratch.holders()).not.toEqual(before)
  })

  it('fails reads for good when a holder is lost that cannot be replaced, also when the other one and the server die afterwards', async () => {
    using scratch = new ErofsScratch()
    scratch.startKeeper(0)
    await eventually(() => scratch.holders().guardian.length === 1, 'there are two holders')
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    const [cached, ...others] = FILES
    const fd = openSync(scratch.mountpoint + cached!.path, 'r') // so that the mount lives on when it is detached
    const held = [{ path: `/proc/${process.pid}/fd/${fd}`, sha256: cached!.sha256 }]
    expect(await readApart('', held)).toEqual({ right: 1, failed: 0, wrong: [] })
    daemon.child.kill('SIGSTOP')
    const readers = new FileReaders(scratch.mountpoint, others, { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    try {
      process.kill(scratch.holders().guardian[0]!, 'SIGKILL')
      const { right, failed, wrong } = await readers.done
      expect([wrong, failed > 0, right + failed]).toEqual([[], true, others.length])
      await scratch.killAtOnce(daemon.pid, ...scratch.holders().keeper)
      expect(await readApart('', held)).toMatchObject({ wrong: [] }) // its pages are right, as long as they are there: other tests drop them too
      dropCaches()
      expect(await readApart('', held)).toEqual({ right: 0, failed: 1, wrong: [] })
      const after = await readApart(scratch.mountpoint, FILES)
      expect([after.wrong, after.right]).toEqual([[], 0])
    } finally {
      closeSync(fd)
      await scratch.killAtOnce(daemon.pid)
    }
    await using _next = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
  })

  it('would show zeros without the keeper\'s deny', async () => {
    using scratch = new ErofsScratch()
    scratch.startKeeper(0, harmfulKeeper(scratch.path))
    await eventually(() => scratch.holders().guardian.length === 1, 'there are two holders')
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    daemon.child.kill('SIGSTOP')
    const readers = new FileReaders(scratch.mountpoint, FILES, { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    process.kill(scratch.holders().guardian[0]!, 'SIGKILL')
    expect((await readers.done).wrong.length).toBeGreaterThan(0)
    await scratch.killAtOnce(daemon.pid, ...scratch.holders().keeper)
  })

  it('fails reads and ends when both holders die at once', async () => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    const root = openSync(scratch.mountpoint, 'r') // so that readers find their files when it is detached
    daemon.child.kill('SIGSTOP')
    const readers = new FileReaders(`/proc/${process.pid}/fd/${root}`, FILES, { threads: 4 })
    await eventually(() => readers.underWay === 4, 'readers wait')
    const { keeper, guardian } = scratch.holders()
    await scratch.killAtOnce(...keeper, ...guardian)
    await pause(200)
    expect(readers.finished).toBe(0) // the server holds the questions too
    daemon.child.kill('SIGCONT')
    const { right, failed, wrong } = await readers.done
    closeSync(root)
    expect([wrong, failed > 0, right + failed]).toEqual([[], true, FILES.length])
    expect(await daemon.ended).toMatchObject({ status: 1, stderr: expect.stringContaining('both holders of fanotify are lost') })
    expect(scratch.isMounted()).toBe(false)
    await using _next = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
  })

  it.each(['the same boot', 'another boot'])('reads right after everything died at once, in %s', async (when) => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    const [first, ...others] = FILES
    const fd = openSync(scratch.mountpoint + first!.path, 'r')
    try {
      expect(await readApart(scratch.mountpoint, others.slice(0, 5))).toMatchObject({ right: 5 })
      const { keeper, guardian } = scratch.holders()
      await scratch.killAtOnce(daemon.pid, ...keeper, ...guardian)
      if (when === 'another boot') { // mounts and pages are gone, and so is what was not synced
        closeSync(fd)
        execFileSync('umount', [scratch.mountpoint])
        dropCaches()
        scratch.changeBoot()
      } else {
        await readApart('', [first!].map(({ sha256 }) => ({ path: `/proc/${process.pid}/fd/${fd}`, sha256 }))) // nobody can make this safe: zeros, or what was filled before
      }
      await using _next = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
      expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
      if (when === 'the same boot') { // the old mount, through whoever uses it
        expect(await readApart('', [{ path: `/proc/${process.pid}/fd/${fd}`, sha256: first!.sha256 }])).toEqual({ right: 0, failed: 1, wrong: [] })
      }
    } finally {
      if (when === 'the same boot') closeSync(fd)
    }
  })

  it('takes the mark away when everything is there and synced: then nobody is needed', async () => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    expect(scratch.marks()).toBe(1)
    expect(await readApart(scratch.mountpoint, filesOf(CASE))).toEqual({ right: filesOf(CASE).length, failed: 0, wrong: [] })
    await eventually(() => scratch.marks() === 0, 'the mark is gone')
    const { keeper, guardian } = scratch.holders()
    await scratch.killAtOnce(daemon.pid, ...keeper, ...guardian)
    dropCaches()
    expect(await readApart(scratch.mountpoint, filesOf(CASE))).toEqual({ right: filesOf(CASE).length, failed: 0, wrong: [] })
    await using _next = await startNydusd(scratch, scratch.args(CASE, ...FANOTIFY))
    await eventually(() => scratch.marks() === 0, 'the background has looked at what was there, and taken the mark away')
    dropCaches()
    expect(await readApart(scratch.mountpoint, filesOf(CASE))).toEqual({ right: filesOf(CASE).length, failed: 0, wrong: [] })
  })

  it('refuses a cache that cannot be marked, with the reason, or takes fileio where it may choose', async () => {
    using scratch = new ErofsScratch()
    mkdirSync(scratch.cache)
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', scratch.cache])
    try {
      const refused = await runNydusd(['--mountpoint', scratch.mountpoint, ...scratch.args(CASE, ...FANOTIFY)])
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/no pre-content events.*tmpfs/) })
      await using daemon = await startNydusd(scratch, scratch.args(CASE))
      expect(await transportOf(daemon, scratch.mountpoint)).toMatchObject({ requested: 'auto', chosen: 'fileio', reason: expect.stringMatching(/fanotify: .*tmpfs/) })
      expect(await readApart(scratch.mountpoint, FILES)).toEqual(ALL_RIGHT)
    } finally {
      execFileSync('umount', ['-l', scratch.cache])
    }
  })
})

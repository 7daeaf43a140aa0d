// `nydusd erofs --fill fanotify`: the kernel reads cache files that are filled while it asks. A reader sees verified bytes, waits, or gets EIO;
// never a zero that is not in the image.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { mountsOn } from '../../src/serve/mountpoint.ts'
import { dropCaches, ErofsScratch, filesOf, readAll, transportOf } from '../support/erofs.ts'
import { differences, expectOfCase, scanDirectory } from '../support/expect.ts'
import { eventually, runNydusd, startNydusd } from '../support/nydusd.ts'
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

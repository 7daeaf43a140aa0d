// `nydusd erofs`: the kernel's own EROFS driver shows the image, its data comes from our devices. Never a wrong byte, whoever dies.

import { execFileSync, spawn } from 'node:child_process'
import { closeSync, cpSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { mountsOn } from '../../src/serve/mountpoint.ts'
import { bootOf, dropCaches, ErofsScratch, filesOf, readAll, transportOf } from '../support/erofs.ts'
import { differences, expectOfCase, scanDirectory, VECTORS } from '../support/expect.ts'
import { requires } from '../support/requires.ts'
import { runNydusd, startNydusd } from '../support/nydusd.ts'

const CASE = 'v6-rich-chunk64k'
const FILEIO = ['--fill', 'fileio'] as const

/** More with a loop around the test; each takes a start of the daemon. */
const KILLS = Number(process.env['NYDUS_TEST_KILLS'] ?? 3)

describe.runIf(requires.root)('nydusd erofs', () => {
  it.each(['v6-rich-zstd', 'merge-all-lists', 'only-metadata'])('shows the tree that the image has: %s', async (name) => {
    using scratch = new ErofsScratch()
    await using daemon = await startNydusd(scratch, scratch.args(name, ...FILEIO))
    expect(mountsOn(scratch.mountpoint).at(-1)?.type).toBe('erofs')
    expect(await differences(expectOfCase(name)!, { walk: () => scanDirectory(scratch.mountpoint) })).toEqual([])
    expect(await transportOf(daemon, scratch.mountpoint)).toMatchObject({ requested: 'fileio', chosen: 'fileio', reason: 'asked for' })
  })

  it('mounts without its blobs, reads EIO, and reads right when they are there', async () => {
    using scratch = new ErofsScratch()
    const away = `${scratch.blobs}.away`
    renameSync(scratch.blobs, away)
    mkdirSync(scratch.blobs)
    await using _daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: 0, failed: filesOf(CASE).length })
    for (const blob of readdirSync(away)) renameSync(path.join(away, blob), path.join(scratch.blobs, blob))
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
  })

  it('reads EIO or right bytes from a blob that is damaged', async () => {
    using scratch = new ErofsScratch()
    const { blobs }: { blobs: { id: string }[] } = JSON.parse(readFileSync(path.join(VECTORS, CASE, 'case.json'), 'utf8'))
    const blob = path.join(scratch.blobs, blobs[0]!.id)
    const bytes = readFileSync(blob)
    for (let at = 5_000; at < bytes.length * 0.8; at += 90_000) bytes[at]! ^= 0x10
    writeFileSync(blob, bytes)
    await using _daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    const { right, failed } = readAll(scratch.mountpoint, CASE)
    expect(failed).toBeGreaterThan(0)
    expect(right).toBeGreaterThan(0)
  })

  it('unmounts at SIGTERM, and takes devices and journal away', async () => {
    using scratch = new ErofsScratch()
    const daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    expect(scratch.journal()).toEqual([{ mountpoint: scratch.mountpoint, source: bootOf(CASE) }])
    expect(scratch.devices().length).toBe(1)
    daemon.child.kill('SIGTERM')
    const { status, stderr } = await daemon.ended
    expect([status, stderr.split('\n').filter((line) => /"level":"(warn|error)"/.test(line) && !line.includes('open files'))]).toEqual([0, []])
    expect([scratch.isMounted(), scratch.devices(), readdirSync(scratch.run)]).toEqual([false, [], []])
  })

  it('detaches what somebody uses at SIGTERM: those read EIO or right bytes', async () => {
    using scratch = new ErofsScratch()
    const daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    const largest = filesOf(CASE).reduce((a, b) => (a.size! > b.size! ? a : b))
    const fd = openSync(scratch.mountpoint + largest.path, 'r')
    try {
      daemon.child.kill('SIGTERM')
      expect(await daemon.ended).toMatchObject({ status: 0 })
      expect(scratch.isMounted()).toBe(false)
      dropCaches()
      expect(() => readFileSync(fd)).toThrow(/EIO/)
    } finally {
      closeSync(fd)
    }
  })

  it('ends when somebody else unmounts', async () => {
    using scratch = new ErofsScratch()
    const daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    execFileSync('umount', [scratch.mountpoint])
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect([scratch.devices(), readdirSync(scratch.run)]).toEqual([[], []])
  })

  it('leaves EIO, never zeros, when it is killed, and the next one cleans up', async () => {
    using scratch = new ErofsScratch()
    const daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    readAll(scratch.mountpoint, CASE)
    daemon.child.kill('SIGKILL')
    await daemon.ended
    dropCaches()
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: 0, failed: filesOf(CASE).length })
    await using _next = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    expect(mountsOn(scratch.mountpoint).length).toBe(1)
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
    expect(scratch.devices().length).toBe(1)
  })

  it('never shows a zero that is not in the image, whenever it is killed', async () => {
    using scratch = new ErofsScratch()
    const script = 'import sys,os,hashlib\nfor line in sys.stdin.read().split("\\n"):\n  f,want=line.split("\\t")\n  try: got=hashlib.sha256(open(f,"rb").read()).hexdigest()\n  except OSError as e:\n    print("error",e.errno,flush=True); continue\n  print("right" if got==want else "WRONG "+f,flush=True)'
    const list = filesOf(CASE).map(({ path: file, sha256: want }) => `${scratch.mountpoint}${file}\t${want}`).join('\n')
    let interrupted = 0
    for (let round = 0; round < KILLS; round++) {
      const daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
      dropCaches()
      const reader = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] })
      const wanted = 1 + (round * 37) % (filesOf(CASE).length / 2)
      let output = ''
      reader.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text
        if (output.split('\n').length > wanted) daemon.child.kill('SIGKILL')
      })
      reader.stdin.end(list)
      await new Promise((resolve) => reader.once('close', resolve))
      await daemon.ended
      const lines = output.trim().split('\n')
      expect(lines.filter((line) => line !== 'right' && line !== 'error 5')).toEqual([])
      if (lines.includes('right') && lines.includes('error 5')) interrupted++
    }
    expect(interrupted).toBeGreaterThan(KILLS / 2) // the kernel may read what little there is ahead of the kill
  })

  it('refuses by name what it does not do, and says why it takes FUSE instead', async () => {
    using scratch = new ErofsScratch()
    const bare = path.join(scratch.path, 'bare.json')
    writeFileSync(bare, JSON.stringify({ version: 2, backend: { type: 'localfs', localfs: { dir: scratch.blobs } }, cache: { type: 'dummycache' } }))
    const args = ['erofs', '--bootstrap', bootOf(CASE), '--config', bare, '--run-dir', scratch.run]
    expect(await runNydusd(['--mountpoint', scratch.mountpoint, ...args, '--fill', 'fileio'])).toMatchObject({ status: 1, stderr: expect.stringContaining('needs a cache directory') })
    await using daemon = await startNydusd(scratch, args)
    expect(mountsOn(scratch.mountpoint).at(-1)?.type).toBe('fuse')
    expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
    expect(await transportOf(daemon, '/')).toMatchObject({ requested: 'auto', chosen: 'fuse', reason: expect.stringContaining('needs a cache directory') })
  })

  it('mounts a bootstrap that lies on an overlay, by a copy', async () => {
    using scratch = new ErofsScratch()
    const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map((name) => path.join(scratch.path, name))
    for (const directory of [lower, upper, work, merged]) mkdirSync(directory!)
    cpSync(bootOf(CASE), path.join(lower!, 'image.boot'))
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`, merged!])
    try {
      const args = ['erofs', '--bootstrap', path.join(merged!, 'image.boot'), '--config', scratch.config(scratch.blobs), '--run-dir', scratch.run, '--fill', 'fileio']
      await using _daemon = await startNydusd(scratch, args)
      expect(readAll(scratch.mountpoint, CASE)).toEqual({ right: filesOf(CASE).length, failed: 0 })
      expect(readdirSync(scratch.cache).filter((name) => name.endsWith('.boot'))).toEqual([])
    } finally {
      execFileSync('umount', [merged!])
    }
  })

  it('mounts by API: images share a device for a common blob, and a complete one needs no daemon', async () => {
    using scratch = new ErofsScratch()
    const places = ['one', 'two', 'three'].map((name) => path.join(scratch.path, name))
    for (const place of places) mkdirSync(place)
    const config = readFileSync(scratch.config(scratch.blobs), 'utf8')
    const daemon = await startNydusd(scratch, ['--run-dir', scratch.run])
    const mount = (place: string, name: string, more: object = {}) => daemon.ask('POST', `/api/v1/mount?mountpoint=${place}`, JSON.stringify({ fs_type: 'erofs', source: bootOf(name), config, fill: 'fileio', ...more }))
    try {
      expect(await mount(places[0]!, 'merge-all-lists')).toMatchObject({ status: 204 })
      expect(await mount(places[1]!, 'merge-lower-only')).toMatchObject({ status: 204 })
      expect(await mount(places[1]!, 'merge-lower-only')).toMatchObject({ status: expect.any(Number) })
      const devices = execFileSync('find', [scratch.devices()[0]!, '-type', 'f'], { encoding: 'utf8' }).trim().split('\n')
      expect(devices.length).toBe(3) // lower, middle, upper: the lower one once
      for (const [place, name] of [[places[0]!, 'merge-all-lists'], [places[1]!, 'merge-lower-only']] as const) expect(readAll(place, name).failed).toBe(0)
      expect(await daemon.ask('DELETE', `/api/v1/mount?mountpoint=${places[0]}`)).toMatchObject({ status: 204 })
      expect(readAll(places[1]!, 'merge-lower-only').failed).toBe(0)
      dropCaches()
      expect(readAll(places[1]!, 'merge-lower-only').failed).toBe(0)
      // all of its chunks are verified by now: the third mount opens the cache file itself
      expect(await mount(places[2]!, 'merge-lower-only', { fill: 'fileio' })).toMatchObject({ status: 204 })
      daemon.child.kill('SIGKILL')
      await daemon.ended
      dropCaches()
      expect(readAll(places[2]!, 'merge-lower-only')).toEqual({ right: filesOf('merge-lower-only').length, failed: 0 })
      expect(readAll(places[1]!, 'merge-lower-only').right).toBe(0)
    } finally {
      for (const place of places) while (mountsOn(place).length > 0) execFileSync('umount', ['-l', place])
    }
  })

  it('refuses a second daemon on the same devices', async () => {
    using scratch = new ErofsScratch()
    await using _daemon = await startNydusd(scratch, scratch.args(CASE, ...FILEIO))
    const second = await runNydusd(['--mountpoint', scratch.mountpoint, ...scratch.args(CASE, ...FILEIO)])
    expect(second).toMatchObject({ status: 1, stderr: expect.stringContaining('another nydusd serves the devices') })
    expect(statSync(scratch.mountpoint).isDirectory()).toBe(true)
  })
})

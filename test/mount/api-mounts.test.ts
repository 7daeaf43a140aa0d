// Many images in one daemon, mounted and unmounted by its API while they are used: what a client sees is what the last answer said.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { differences, expectOfCase, parseScan, VECTORS } from '../support/expect.ts'
import { largeBootstrap } from '../support/large-image.ts'
import { eventually, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'

const bootOf = (name: string): string => path.join(VECTORS, name, 'image.boot')

interface MountBody { readonly source: string; readonly config: string; readonly fs_type?: string }

/** Body of a mount request for the image of a fixture. */
function body(scratch: Scratch, name = 'v6-small-zstd', change: Partial<MountBody> = {}): MountBody {
  return { fs_type: 'rafs', source: bootOf(name), config: readFileSync(scratch.config(), 'utf8'), ...change }
}

async function mount(daemon: RunningDaemon, mountpoint: string, what: MountBody, method = 'POST'): Promise<{ status: number; body: unknown }> {
  return await daemon.ask(method, `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint)}`, JSON.stringify(what))
}

const umount = (daemon: RunningDaemon, mountpoint: string): Promise<{ status: number }> => daemon.ask('DELETE', `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint)}`)

async function mounted(daemon: RunningDaemon): Promise<string[]> {
  const { body: answer } = await daemon.ask('GET', '/api/v1/daemon')
  // SAFETY: the documented shape; a wrong one fails the test.
  return Object.keys((answer as { backend_collection: object }).backend_collection)
}

async function wrongIn(directory: string, name: string): Promise<unknown[]> {
  const scan = execFileSync('python3', [path.join(VECTORS, 'scan.py'), directory], { encoding: 'utf8', maxBuffer: 2 ** 26 })
  return await differences(expectOfCase(name)!, { walk: () => parseScan(scan) }, { ignore: ['nlink', 'sameAs'] })
}

describe('a daemon with many mounts', () => {
  it('starts with none, shows each as soon as it is mounted, whole, and forgets it when it is unmounted', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    const at = (name: string): string => path.join(scratch.mountpoint, name)
    for (let round = 0; round < 3; round++) {
      expect([existsSync(at('one')), existsSync(at('two')), readdirSync(scratch.mountpoint)]).toEqual([false, false, []]) // the kernel remembers that
      expect(await mount(daemon, '/one', body(scratch))).toMatchObject({ status: 204 })
      expect(await mount(daemon, '/two', body(scratch, 'v6-rich-chunk64k'))).toMatchObject({ status: 204 })
      expect(readdirSync(scratch.mountpoint)).toEqual(['one', 'two'])
      if (round === 0) {
        expect(await wrongIn(at('one'), 'v6-small-zstd')).toEqual([])
        expect(await wrongIn(at('two'), 'v6-rich-chunk64k')).toEqual([])
      }
      expect(await mounted(daemon)).toEqual(['/one', '/two'])
      expect([await umount(daemon, '/one'), await umount(daemon, '/two')]).toMatchObject([{ status: 204 }, { status: 204 }])
    }
    expect(readdirSync(scratch.mountpoint)).toEqual([])
    expect(await mounted(daemon)).toEqual([])
  })

  it('mounts at nested mountpoints, also into an image, and gives inode numbers that differ between mounts', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--bootstrap', bootOf('v6-small-zstd'), '--config', scratch.config()])
    const at = (name: string): string => path.join(scratch.mountpoint, name)
    const before = readdirSync(scratch.mountpoint)
    const directory = before.find((name) => statSync(at(name)).isDirectory())!
    const inside = readdirSync(at(directory))
    for (const mountpoint of ['/a/b/c', '/a/b', '/a/d', `/${directory}/x/y`]) expect(await mount(daemon, mountpoint, body(scratch))).toMatchObject({ status: 204 })
    expect(readdirSync(scratch.mountpoint).toSorted()).toEqual([...before, 'a'].toSorted())
    expect(readdirSync(at('a'))).toEqual(['b', 'd'])
    expect(readdirSync(at('a/b')).toSorted()).toEqual([...before, 'c'].toSorted())
    expect(readdirSync(at('a/b/c'))).toEqual(before)
    expect(readdirSync(at(directory)).toSorted()).toEqual([...inside, 'x'].toSorted())
    expect(readdirSync(at(`${directory}/x/y`))).toEqual(before)
    const inodes = ['', 'a', 'a/b', 'a/b/c', 'a/d', `${directory}/x`, `${directory}/x/y`].map((name) => statSync(at(name), { bigint: true }).ino)
    expect(new Set(inodes).size).toBe(inodes.length)
    // smoke: remount nested, stat at once
    for (let i = 0; i < 3; i++) {
      expect(await umount(daemon, '/a/b/c')).toMatchObject({ status: 204 })
      expect(existsSync(at('a/b/c'))).toBe(false)
      expect(await mount(daemon, '/a/b/c', body(scratch))).toMatchObject({ status: 204 })
      expect(statSync(at('a/b/c')).isDirectory()).toBe(true)
    }
    for (const mountpoint of ['/a/b', '/a/b/c', '/a/d', `/${directory}/x/y`]) expect(await umount(daemon, mountpoint)).toMatchObject({ status: 204 })
    expect(readdirSync(scratch.mountpoint)).toEqual(before)
    expect(readdirSync(at(directory))).toEqual(inside)
  })

  it('takes a repeated mount as done, refuses another one there, replaces on PUT, says what does not work', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    const at = (name: string): string => path.join(scratch.mountpoint, name)
    expect(await mount(daemon, '/m', body(scratch), 'PUT')).toMatchObject({ status: 500, body: { code: 'UNDEFINED', message: expect.stringContaining('nothing is mounted') } })
    expect(await umount(daemon, '/m')).toMatchObject({ status: 500 })
    expect(await mount(daemon, '/m', body(scratch))).toMatchObject({ status: 204 })
    const small = readdirSync(at('m'))
    const config = JSON.stringify(JSON.parse(body(scratch).config), undefined, 2)
    expect(await mount(daemon, '/m', body(scratch, undefined, { config }))).toMatchObject({ status: 204 })
    expect(await mount(daemon, '/m', body(scratch, 'v6-rich-chunk64k'))).toMatchObject({ status: 500, body: { message: expect.stringContaining('already exists') } })
    expect(readdirSync(at('m'))).toEqual(small)
    expect(await mount(daemon, '/m', body(scratch, 'v6-rich-chunk64k'), 'PUT')).toMatchObject({ status: 204 })
    expect(await wrongIn(at('m'), 'v6-rich-chunk64k')).toEqual([])
    // a mount that fails leaves the old one
    expect(await mount(daemon, '/m', body(scratch, undefined, { source: '/nonexistent' }), 'PUT')).toMatchObject({ body: { code: 'UNDEFINED' } })
    expect(readdirSync(at('m'))).not.toEqual(small)
    for (const [what, status] of [[{ fs_type: 'passthroughfs' }, 400], [{ fs_type: 'what' }, 400], [{ config: 'no config' }, 400]] as const) {
      expect(await mount(daemon, '/n', body(scratch, undefined, what)), JSON.stringify(what)).toMatchObject({ status, body: { code: 'UNDEFINED' } })
    }
    for (const mountpoint of ['relative', '/a/../b', '/./a']) expect(await mount(daemon, mountpoint, body(scratch)), mountpoint).toMatchObject({ status: 400 })
    expect(await daemon.ask('POST', '/api/v1/mount', JSON.stringify(body(scratch)))).toMatchObject({ status: 400 })
    expect(await daemon.ask('POST', '/api/v1/mount?mountpoint=%2Fn', '{}')).toMatchObject({ status: 400 })
    expect(readdirSync(scratch.mountpoint)).toEqual(['m'])
  })

  it('replaces, removes and brings back the root itself', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--bootstrap', bootOf('v6-small-zstd'), '--config', scratch.config()])
    const small = readdirSync(scratch.mountpoint)
    for (const name of small) statSync(path.join(scratch.mountpoint, name))
    expect(await mount(daemon, '/', body(scratch, 'v6-rich-chunk64k'), 'PUT')).toMatchObject({ status: 204 })
    expect(await wrongIn(scratch.mountpoint, 'v6-rich-chunk64k')).toEqual([])
    expect(await umount(daemon, '/')).toMatchObject({ status: 204 })
    expect(readdirSync(scratch.mountpoint)).toEqual([])
    for (const name of small) expect(existsSync(path.join(scratch.mountpoint, name)), name).toBe(false)
    expect(await mount(daemon, '/', body(scratch))).toMatchObject({ status: 204 })
    expect(await wrongIn(scratch.mountpoint, 'v6-small-zstd')).toEqual([])
  })

  it('mounts and unmounts 300 times in a row, and 300 at once, leaving no descriptor behind', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    const descriptors = (): number => readdirSync(`/proc/${daemon.pid}/fd`).length
    const what = body(scratch)
    await mount(daemon, '/first', what)
    await umount(daemon, '/first')
    const before = descriptors()
    for (let i = 0; i < 300; i++) {
      expect(await mount(daemon, '/again', what)).toMatchObject({ status: 204 })
      expect(statSync(path.join(scratch.mountpoint, 'again')).isDirectory()).toBe(true)
      expect(await umount(daemon, '/again')).toMatchObject({ status: 204 })
    }
    expect(descriptors()).toBeLessThanOrEqual(before + 2)
    const all = Array.from({ length: 300 }, (_, i) => `/many/${i}`)
    for (let i = 0; i < all.length; i += 20) {
      for (const { status } of await Promise.all(all.slice(i, i + 20).map((mountpoint) => mount(daemon, mountpoint, what)))) expect(status).toBe(204)
    }
    expect(readdirSync(path.join(scratch.mountpoint, 'many'))).toHaveLength(300)
    expect(readdirSync(path.join(scratch.mountpoint, 'many/299'))).toEqual(readdirSync(path.join(scratch.mountpoint, 'many/0')))
    for (let i = 0; i < all.length; i += 20) await Promise.all(all.slice(i, i + 20).map((mountpoint) => umount(daemon, mountpoint)))
    expect(readdirSync(scratch.mountpoint)).toEqual([])
    await eventually(() => descriptors() <= before + 2, 'descriptors of the mounts are closed')
  }, 120_000)

  it('unmounts what is open and being walked: ESTALE for what is open, no wrong byte, and the daemon goes on', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--fuse-threads', '2'])
    const [walked, kept] = [path.join(scratch.mountpoint, 'walked'), path.join(scratch.mountpoint, 'kept')]
    const large = path.join(scratch.path, 'large.boot')
    writeFileSync(large, largeBootstrap([4000, 4000]))
    await mount(daemon, '/kept', body(scratch))
    for (let round = 0; round < 5; round++) {
      expect(await mount(daemon, '/walked', body(scratch, undefined, { source: large }))).toMatchObject({ status: 204 })
      const walkers: ChildProcess[] = [1, 2, 3].map(() => spawn('sh', ['-c', `while ls -lR ${walked} >/dev/null 2>&1; do :; done`], { stdio: 'ignore' }))
      const fd = openSync(path.join(walked, 'directory-0/file-with-a-name-1'), 'r')
      try {
        await new Promise((resolve) => setTimeout(resolve, 100))
        expect(await umount(daemon, '/walked')).toMatchObject({ status: 204 })
        expect(existsSync(walked)).toBe(false)
        expect(() => readSync(fd, new Uint8Array(10), 0, 10, 0)).toThrow(expect.objectContaining({ errno: -os.constants.errno.ESTALE }))
        await Promise.all(walkers.map((walker) => new Promise((resolve) => (walker.exitCode === null ? walker.once('exit', resolve) : resolve(undefined)))))
      } finally {
        closeSync(fd)
        for (const walker of walkers) walker.kill('SIGKILL')
      }
    }
    expect(await wrongIn(kept, 'v6-small-zstd')).toEqual([])
  }, 60_000)

  it('counts for each mount what was done in it', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    await mount(daemon, '/one', body(scratch))
    await mount(daemon, '/two', body(scratch))
    const files = expectOfCase('v6-small-zstd')!.filter(({ type }) => type === 'reg').map((entry) => path.join(scratch.mountpoint, 'one', entry.path))
    const sizes = new Map(files.map((file) => [statSync(file).ino, readFileSync(file).length])) // hard links are read once
    const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0)
    const stats = async (id: string): Promise<{ id: string; data_read: number }> => {
      // SAFETY: the documented shape.
      return (await daemon.ask('GET', `/api/v1/metrics?id=${encodeURIComponent(id)}`)).body as { id: string; data_read: number }
    }
    expect(await stats('/one')).toMatchObject({ id: '/one', data_read: bytes })
    expect(await stats('/two')).toMatchObject({ id: '/two', data_read: 0 })
    expect(await daemon.ask('GET', '/api/v1/metrics')).toMatchObject({ status: 404 })
  })
})

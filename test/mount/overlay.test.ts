// Writable mounts: an upper directory over an image, compared with the kernel's overlayfs over the kernel's EROFS mount of the same image.

import { spawnSync } from 'node:child_process'
import { appendFileSync, chmodSync, chownSync, closeSync, existsSync, fsyncSync, ftruncateSync, linkSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, renameSync, rmdirSync, rmSync, statSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ErofsMount } from '../support/erofs-mount.ts'
import { differences, scanDirectory, type TreeEntry } from '../support/expect.ts'
import { startNydusd } from '../support/nydusd.ts'
import { mountOverlay, WritableImage, WritableScratch } from '../support/overlay.ts'
import { requires } from '../support/requires.ts'

/** When files change is not the same in two trees; where they come from is. Writing through a mapping takes a file's capabilities away here, and not from overlayfs. */
function comparable(entries: readonly TreeEntry[], source: readonly TreeEntry[]): TreeEntry[] {
  const before = new Map(source.map((entry) => [entry.path, entry.mtime]))
  return entries.map((entry) => ({ ...entry, mtime: before.get(entry.path)?.[0] === entry.mtime?.[0] ? entry.mtime ?? [0, 0] : [0, 0] as const, ...(entry.type === 'dir' && { nlink: 0, size: 0 }), ...(entry.xattrs && source.length === 0 && { xattrs: withoutCapabilities(entry.xattrs) }) }))
}

function withoutCapabilities(xattrs: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(xattrs).filter(([name]) => name !== 'security.capability'))
}

// LIMIT: not which names are one file: overlayfs shows two links of an upper file with two numbers when one was there before the other.
async function same(first: string, second: string, source: readonly TreeEntry[]): Promise<string[]> {
  const [want, have] = [first, second].map((root) => comparable(scanDirectory(root), source))
  return await differences(want!, { walk: () => have! }, { ignore: ['sameAs'] })
}

const OPERATIONS = path.resolve(import.meta.dirname, '../support/operations.py')
const STEPS = Number(process.env['OVERLAY_STEPS'] ?? 800)
const SEED = Number(process.env['OVERLAY_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const SEEDS = Array.from({ length: Number(process.env['OVERLAY_ROUNDS'] ?? 1) }, (_, i) => [STEPS, SEED + i] as const)
const file = 'known/file-8'
const directory = 'known/directory'

describe.runIf(requires.root && requires.program('python3'))('a writable mount', () => {
  let image: WritableImage
  let lower: ErofsMount
  let source: TreeEntry[]
  beforeAll(() => {
    image = new WritableImage(7, { twins: true })
    lower = image.mount()
    source = scanDirectory(lower.mountpoint)
  })
  afterAll(() => {
    lower[Symbol.dispose]()
    image[Symbol.dispose]()
  })

  /** Some of everything. */
  function change(root: string): void {
    const at = (name: string): string => path.join(root, name)
    appendFileSync(at(file), 'appended')
    writeFileSync(at('new'), 'new file')
    mkdirSync(at('made/deep'), { recursive: true })
    renameSync(at('made'), at('moved'))
    writeFileSync(at('moved/deep/file'), Buffer.alloc(200_000, 7))
    symlinkSync('deep/file', at('moved/link'))
    linkSync(at('moved/deep/file'), at('second'))
    const names = readdirSync(at(directory))
    for (const name of names) rmSync(at(path.join(directory, name)), { recursive: true })
    rmdirSync(at(directory))
    mkdirSync(at(directory))
    writeFileSync(at(`${directory}/only`), 'the only one')
    truncateSync(at('known/file-0'), 3)
    chmodSync(at('known/file-1'), 0o640)
    chownSync(at('known/file-2'), 7, 8)
    utimesSync(at('known/file-3'), 5, 6)
    renameSync(at('known/file-4'), at('renamed'))
    unlinkSync(at('known/file-5'))
    writeFileSync(at('known/file-5'), 'again')
    appendFileSync(at('known/twin-a'), ' no more')
  }

  it('shows what the kernel\'s overlayfs shows after the same changes, and leaves an upper directory that it takes as its own', async () => {
    using scratch = new WritableScratch(image)
    using kernel = new WritableScratch(image)
    using _overlay = mountOverlay({ lower: lower.mountpoint, upper: kernel.upper, work: kernel.work, mountpoint: kernel.mountpoint })
    const config = path.join(scratch.path, 'config.json')
    writeFileSync(config, JSON.stringify(scratch.settings()))
    {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', image.bootstrap, '--config', config, '--writable'])
      expect(await same(kernel.mountpoint, scratch.mountpoint, source)).toEqual([])
      change(kernel.mountpoint)
      change(scratch.mountpoint)
      expect(await same(kernel.mountpoint, scratch.mountpoint, source)).toEqual([])
    }
    expect(readdirSync(path.join(scratch.work, 'nydus'))).toEqual(['new'])
    expect(readdirSync(path.join(scratch.work, 'nydus/new'))).toEqual([])
    using _again = mountOverlay({ lower: lower.mountpoint, upper: scratch.upper, work: scratch.work, mountpoint: scratch.mountpoint })
    expect(await same(kernel.mountpoint, scratch.mountpoint, source)).toEqual([])
  })

  it('takes an upper directory of the kernel\'s overlayfs as its own', async () => {
    using scratch = new WritableScratch(image)
    using kernel = new WritableScratch(image)
    {
      using _overlay = mountOverlay({ lower: lower.mountpoint, upper: scratch.upper, work: scratch.work, mountpoint: scratch.mountpoint })
      change(scratch.mountpoint)
    }
    using _overlay = mountOverlay({ lower: lower.mountpoint, upper: kernel.upper, work: kernel.work, mountpoint: kernel.mountpoint })
    change(kernel.mountpoint)
    await using daemon = await startNydusd(scratch, ['--writable'])
    const mounted = await daemon.ask('POST', '/api/v1/mount?mountpoint=/', JSON.stringify({ source: image.bootstrap, fs_type: 'rafs', config: JSON.stringify(scratch.settings()) }))
    expect(mounted.status).toBe(204)
    expect(await same(kernel.mountpoint, scratch.mountpoint, source)).toEqual([])
  })

  // Not copy_file_range, which the kernel refuses between the two layers (EXDEV) and we do not. OVERLAY_SEED repeats one, OVERLAY_ROUNDS and OVERLAY_STEPS make it longer.
  it.each(SEEDS)('answers %i random operations as the kernel\'s overlayfs does, seed %i', async (steps, seed) => {
    using image = new WritableImage(seed)
    using lower = image.mount()
    using scratch = new WritableScratch(image)
    using kernel = new WritableScratch(image)
    using _overlay = mountOverlay({ lower: lower.mountpoint, upper: kernel.upper, work: kernel.work, mountpoint: kernel.mountpoint })
    const config = path.join(scratch.path, 'config.json')
    writeFileSync(config, JSON.stringify(scratch.settings()))
    {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', image.bootstrap, '--config', config, '--writable'])
      const run = spawnSync('python3', [OPERATIONS, kernel.mountpoint, scratch.mountpoint, String(seed), String(steps), 'copy'], { encoding: 'utf8' })
      expect([run.stdout.startsWith('{') ? '' : run.stdout, run.stderr, run.status]).toEqual(['', '', 0])
      console.log(`overlay: seed ${seed}, ${steps} steps: ${run.stdout.trim()}`)
    }
    using _again = mountOverlay({ lower: lower.mountpoint, upper: scratch.upper, work: scratch.work, mountpoint: scratch.mountpoint })
    expect(await same(kernel.mountpoint, scratch.mountpoint, [])).toEqual([])
  }, 120_000)

  it('keeps inode numbers, open files and what is removed while it is open', async () => {
    using scratch = new WritableScratch(image)
    const config = path.join(scratch.path, 'config.json')
    writeFileSync(config, JSON.stringify(scratch.settings()))
    await using _daemon = await startNydusd(scratch, ['--bootstrap', image.bootstrap, '--config', config, '--writable'])
    const at = (name: string): string => path.join(scratch.mountpoint, name)
    const before = statSync(at(file))
    const content = readFileSync(at(file))
    const reader = openSync(at(file), 'r')
    appendFileSync(at(file), 'x')
    expect(statSync(at(file)).ino).toBe(before.ino)
    unlinkSync(at(file))
    expect(existsSync(at(file))).toBe(false)
    const part = Buffer.alloc(content.length)
    expect([readSync(reader, part, 0, part.length, 0), part.equals(content)]).toEqual([content.length, true])
    closeSync(reader)
    const writer = openSync(at('temporary'), 'w+')
    unlinkSync(at('temporary'))
    writeSync(writer, 'still here')
    ftruncateSync(writer, 5)
    fsyncSync(writer)
    const read = Buffer.alloc(20)
    expect([readSync(writer, read, 0, 20, 0), read.toString('latin1', 0, 5)]).toEqual([5, 'still'])
    closeSync(writer)
  })

  it('does not show as empty what overlayfs has moved or copied by half with options that are not its defaults', async () => {
    using scratch = new WritableScratch(image)
    {
      using _overlay = mountOverlay({ lower: lower.mountpoint, upper: scratch.upper, work: scratch.work, mountpoint: scratch.mountpoint, options: 'redirect_dir=on,metacopy=on,' })
      renameSync(path.join(scratch.mountpoint, directory), path.join(scratch.mountpoint, 'redirected'))
      chmodSync(path.join(scratch.mountpoint, file), 0o600)
    }
    const config = path.join(scratch.path, 'config.json')
    writeFileSync(config, JSON.stringify(scratch.settings()))
    await using _daemon = await startNydusd(scratch, ['--bootstrap', image.bootstrap, '--config', config, '--writable'])
    for (const name of ['redirected', file]) expect(() => statSync(path.join(scratch.mountpoint, name)), name).toThrow(/EIO/)
  })

  it('refuses directories that cannot hold an overlay, and says why', async () => {
    using scratch = new WritableScratch(image)
    await using daemon = await startNydusd(scratch, ['--writable'])
    const refusal = async (overlay: object): Promise<unknown> => await daemon.ask('POST', '/api/v1/mount?mountpoint=/x', JSON.stringify({ source: image.bootstrap, fs_type: 'rafs', config: JSON.stringify({ ...scratch.settings(), overlay }) }))
    expect(await refusal({ upper_dir: '/proc', work_dir: scratch.work })).toMatchObject({ status: 400, body: { message: expect.stringMatching(/overlay/) } })
    expect(await refusal({ upper_dir: scratch.upper, work_dir: `${scratch.upper}/work` })).toMatchObject({ status: 400, body: { message: expect.stringMatching(/must not lie in each other/) } })
    expect(await refusal({ upper_dir: `${scratch.upper}/none`, work_dir: scratch.work })).toMatchObject({ status: 400, body: { message: expect.stringMatching(/cannot be used/) } })
  })
})

// `nydus-image export --block` as a user runs it: the kernel mounts the disk, dm-verity's own tool accepts the tree.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { build, makeTar, tarSource } from '../support/built-image.ts'
import { differences, expectOfCase, scanDirectory, VECTORS } from '../support/expect.ts'
import { requires } from '../support/requires.ts'
import { checkDisk, parseVerityLine } from '../support/verity.ts'

const BUILDER = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const BLOBS = path.join(VECTORS, 'blobs')
let base: string
beforeAll(() => { base = mkdtempSync(path.join(tmpdir(), 'export-block-')) })
afterAll(() => rmSync(base, { recursive: true, force: true }))

const exporter = (...argv: readonly string[]) => spawnSync(BUILDER, ['export', ...argv], { encoding: 'utf8', cwd: base })
const bootstrap = (name: string) => path.join(VECTORS, name, 'image.boot')

/** A disk behind a loop device, mounted by the kernel. */
function mountDisk(disk: string): Disposable & { readonly mountpoint: string } {
  const mountpoint = mkdtempSync(path.join(base, 'mnt-'))
  execFileSync('mount', ['-t', 'erofs', '-o', 'loop,ro', disk, mountpoint])
  return { mountpoint, [Symbol.dispose]: () => { execFileSync('umount', [mountpoint]) } }
}

describe.runIf(requires.root)('nydus-image export --block', () => {
  it.each(['v6-rich-zstd', 'v6-batch-1m', 'merge-all-lists'])('gives a disk that the kernel mounts: %s', async (name) => {
    const disk = path.join(base, `${name}.img`)
    expect(exporter('--block', '--bootstrap', bootstrap(name), '--localfs-dir', BLOBS, '--output', disk)).toMatchObject({ status: 0, stdout: '', stderr: '' })
    using mount = mountDisk(disk)
    expect(await differences(expectOfCase(name)!, { walk: () => scanDirectory(mount.mountpoint) })).toEqual([])
  })

  it('prints what dm-verity must be told, and only that', async () => {
    const disk = path.join(base, 'verity.img')
    const { status, stdout, stderr } = exporter('--block', '-B', bootstrap('v6-rich-zstd'), '-D', BLOBS, '-O', disk, '--verity', '--threads', '2')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const table = parseVerityLine(stdout)
    const bytes = readFileSync(disk)
    expect(checkDisk(bytes, table)).toBeUndefined()
    bytes[3_000_000]! ^= 4
    expect(checkDisk(bytes, table)).toBeDefined()
    using mount = mountDisk(disk)
    expect(await differences(expectOfCase('v6-rich-zstd')!, { walk: () => scanDirectory(mount.mountpoint) })).toEqual([])
  })

  // veritysetup wants zeros where upstream, and so we, have the digest of a zero block: it can judge trees whose hash blocks are all full.
  it.runIf(requires.program('veritysetup'))('veritysetup accepts a tree of full hash blocks, and no flipped bit', async () => {
    const mapped = BootstrapView.open((await build(tarSource(makeTar([{ path: 'probe', data: 'x' }])))).bootstrap).devices[0]!.mappedBlock
    const data = Buffer.alloc((128 * 128 - mapped) * 4096)
    for (let at = 0; at < data.length; at += 4096) data.writeUInt32LE(at + 1, at)
    const image = await build(tarSource(makeTar([{ path: 'file', data }]), 1 << 20))
    writeFileSync(path.join(base, image.blob!.blobId), image.bytes)
    writeFileSync(path.join(base, 'full.boot'), image.bootstrap)
    const { stdout } = exporter('--block', '-B', 'full.boot', '-D', '.', '--verity')
    const { blocks, hashOffset, root } = parseVerityLine(stdout)
    expect(blocks).toBe(128 * 128)
    const disk = path.join(base, 'full.boot.disk')
    const verify = () => spawnSync('veritysetup', ['verify', disk, disk, root, '--no-superblock', '--format=1', '--salt=-', '--hash=sha256', '--data-block-size=4096', '--hash-block-size=4096', `--data-blocks=${blocks}`, `--hash-offset=${hashOffset}`], { encoding: 'utf8' })
    expect(verify()).toMatchObject({ status: 0, stderr: '' })
    const bytes = readFileSync(disk)
    bytes[hashOffset - 1]! ^= 1
    writeFileSync(disk, bytes)
    expect(verify().status).not.toBe(0)
    rmSync(disk)
  })

  it('takes a blob cache entry in either form', () => {
    const backend = { dir: BLOBS }
    const entries = {
      v2: { type: 'bootstrap', id: 'an-image', config_v2: { version: 2, id: 'factory', backend: { type: 'localfs', localfs: backend }, cache: { type: 'filecache', filecache: { work_dir: base } }, metadata_path: bootstrap('v6-small-none') } },
      v1: { type: 'bootstrap', id: 'an-image', domain_id: 'd', config: { id: 'factory', backend_type: 'localfs', backend_config: backend, cache_type: 'fscache', cache_config: { work_dir: base }, metadata_path: bootstrap('v6-small-none') } },
    }
    const disks = Object.entries(entries).map(([name, entry]) => {
      writeFileSync(path.join(base, `${name}.json`), JSON.stringify(entry))
      expect(exporter('--block', '-C', `${name}.json`, '-O', `${name}.img`)).toMatchObject({ status: 0, stdout: '', stderr: '' })
      return readFileSync(path.join(base, `${name}.img`))
    })
    expect(disks[0]!.equals(disks[1]!)).toBe(true)
    writeFileSync(path.join(base, 'blob.json'), JSON.stringify({ type: 'datablob', id: 'a', config_v2: {} }))
    expect(exporter('--block', '-C', 'blob.json', '-O', 'x')).toMatchObject({ status: 1, stderr: expect.stringContaining('[CONFIG_INVALID]') })
  })

  it('names the disk after the bootstrap, replaces an older one, and leaves nothing where it fails', () => {
    const work = path.join(base, 'work')
    mkdirSync(work)
    for (const blob of readdirSync(BLOBS).filter((name) => name.startsWith('49589579d5'))) writeFileSync(path.join(work, blob), readFileSync(path.join(BLOBS, blob)))
    writeFileSync(path.join(work, 'image.boot.disk'), Buffer.alloc(5 << 20, 1))
    expect(exporter('--block', '-B', bootstrap('v6-small-none'), '-D', 'work')).toMatchObject({ status: 0 })
    expect(readFileSync(path.join(work, 'image.boot.disk')).length).toBe(860_160)
    expect(exporter('--block', '-B', bootstrap('v6-rich-zstd'), '-D', 'work', '-O', 'work/none')).toMatchObject({ status: 1, stderr: expect.stringContaining('[STORAGE_NOT_FOUND]') })
    expect(readdirSync(work).filter((name) => name.includes('none'))).toEqual([])
  })

  it.each([
    [['-B', 'b', '-D', 'd'], /--block/], [['--block', '-D', 'd'], /--bootstrap/], [['--block', '-C', 'c'], /--output/], [['--block', '-B', 'b', '-D', 'd', '-C', 'c'], /cannot be used with/],
    [['--block', '-B', 'b', '-D', 'd', '--threads', '0'], /--threads/],
  ])('refuses %j as upstream does, with exit 2', (argv, message) => {
    expect(exporter(...argv)).toMatchObject({ status: 2, stderr: expect.stringMatching(message) })
    expect(existsSync(path.join(base, 'd'))).toBe(false)
  })
})

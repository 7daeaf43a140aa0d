// Random source trees through `create`: our FUSE mount, the kernel's EROFS on the cache files that the daemon left, and the tar that `unpack`
// writes (extracted by GNU tar) and the package's own reader all show the source; fsck.erofs and an independent decoder accept the image.

import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { mountErofsFiles } from '../support/erofs-mount.ts'
import { differences, scanDirectory, type TreeEntry } from '../support/expect.ts'
import { libraryTree } from '../support/library-tree.ts'
import { pause, Scratch, startNydusd } from '../support/nydusd.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const BUILDER = path.join(ROOT, 'bin/nydus-image')
const TOOLS = path.join(ROOT, 'fixtures/tools')
const TREES = 15
/** Of each feature that random_tree.py counts, in all trees. */
const LEAST = 20

/** sha256 where the decoder is to verify every chunk: its blake3 is written in Python. */
const OPTIONS: readonly (readonly string[])[] = [
  [], ['--compressor', 'none', '--digester', 'sha256'], ['--compressor', 'lz4_block', '--digester', 'sha256'], ['--batch-size', '0x100000'],
  ['--chunk-size', '0x1000', '--digester', 'sha256'], ['--chunk-size', '0x4000', '--batch-size', '0x4000', '--compressor', 'lz4_block'], ['--features', 'blob-toc', '--chunk-size', '0x10000'],
]

/** What any image says otherwise than its source: the root's time, and each link of anything but a file is a file of its own. */
function asImage(entry: TreeEntry): TreeEntry {
  return { ...entry, ...(entry.path === '/' && { mtime: [0, 0] as const }), ...(entry.type !== 'reg' && { sameAs: '', ...(entry.type !== 'dir' && { nlink: 1 }) }) }
}

/** What a tar cannot hold: sockets, and the root. */
function inTar({ type, path: name }: TreeEntry): boolean {
  return type !== 'sock' && name !== '/'
}

function extract(bootstrap: string, blobs: string, directory: string): void {
  mkdirSync(directory)
  const tar = `${directory}.tar`
  const output = openSync(tar, 'w')
  try {
    const { status, stderr } = spawnSync(BUILDER, ['unpack', '-l', 'warn', '-B', bootstrap, '-D', blobs, '--output', '-'], { stdio: ['ignore', output, 'pipe'], encoding: 'utf8' })
    expect([status, stderr]).toEqual([0, ''])
  } finally {
    closeSync(output)
  }
  execFileSync('tar', ['--xattrs', '--xattrs-include=*', '--same-owner', '--numeric-owner', '-xpf', tar, '-C', directory], { env: { ...process.env, LC_ALL: 'C' }, stdio: ['ignore', 'ignore', 'pipe'] })
  rmSync(tar)
}

async function judge(seed: number, options: readonly string[]): Promise<Record<string, number>> {
  using scratch = new Scratch()
  const [source, bootstrap, blobs, extracted] = ['source', 'image.boot', 'blobs', 'extracted'].map((name) => path.join(scratch.path, name))
  const counts: Record<string, number> = JSON.parse(execFileSync('python3', [path.join(TOOLS, 'random_tree.py'), source!, String(seed)], { encoding: 'utf8' }))
  mkdirSync(blobs!)
  const created = spawnSync(BUILDER, ['create', '-l', 'warn', '-B', bootstrap!, '-D', blobs!, ...options, source!], { encoding: 'utf8' })
  expect([created.status, created.stderr]).toEqual([0, ''])
  const want = scanDirectory(source!).map(asImage)
  {
    await using daemon = await startNydusd(scratch, ['--bootstrap', bootstrap!, '--config', scratch.config(blobs)])
    const walk = () => scanDirectory(scratch.mountpoint)
    const found = await differences(want, { walk }, { ignoreDirectorySize: true }).catch(async (error: unknown) => {
      const end = await Promise.race([daemon.ended, pause(1000)])
      throw new Error(`nydusd ${end === undefined ? 'runs' : `ended: ${JSON.stringify(end)}`}`, { cause: error })
    })
    expect(found).toEqual([])
    expect(statSync(scratch.mountpoint).mode & 0o7777).toBe(0o750)
  }
  const devices = BootstrapView.open(readFileSync(bootstrap!)).blobs.map(({ blobId }) => path.join(scratch.cache, `${blobId}.blob.data`))
  {
    using _mount = mountErofsFiles({ bootstrap: bootstrap!, mountpoint: scratch.mountpoint, devices })
    expect(await differences(want, { walk: () => scanDirectory(scratch.mountpoint) }, { ignoreDirectorySize: true })).toEqual([])
  }
  const byLibrary = await libraryTree(bootstrap!, blobs!)
  expect(await differences(want, { walk: () => byLibrary }, { ignoreDirectorySize: true })).toEqual([])
  extract(bootstrap!, blobs!, extracted!)
  expect(await differences(want.filter(inTar), { walk: () => scanDirectory(extracted!).filter(inTar) }, { ignoreDirectorySize: true })).toEqual([])
  const fsck = spawnSync('fsck.erofs', [...devices.map((device) => `--device=${device}`), bootstrap!], { encoding: 'utf8' })
  expect([fsck.status, fsck.stderr]).toEqual([0, expect.any(String)])
  const decoded = spawnSync('python3', [path.join(TOOLS, 'decode_rafs6.py'), bootstrap!, ...(options.includes('sha256') ? ['--blob-dir', blobs!] : [])], { encoding: 'utf8' })
  expect([decoded.status, decoded.stdout]).toEqual([0, expect.stringContaining('ALL CHECKS PASSED')])
  expect(readdirSync(blobs!)).toHaveLength(devices.length)
  return counts
}

describe('random trees', () => {
  it('are what every reader of their images shows', async () => {
    const seed = Number(process.env['PROPERTY_SEED'] ?? Date.now() % 2 ** 31)
    process.stdout.write(`trees: PROPERTY_SEED=${seed}\n`)
    const counts = new Map<string, number>()
    for (let i = 0; i < TREES; i++) {
      const options = OPTIONS[i % OPTIONS.length]!
      try {
        for (const [feature, count] of Object.entries(await judge(seed + i, options))) counts.set(feature, (counts.get(feature) ?? 0) + count)
      } catch (error) {
        throw new Error(`tree ${i} (random_tree.py ROOT ${seed + i}) with [${options.join(' ')}]`, { cause: error })
      }
    }
    process.stdout.write(`trees: ${[...counts].map(([feature, count]) => `${feature} ${count}`).join(', ')}\n`)
    expect(counts.size).toBe(22)
    expect([...counts].filter(([, count]) => count < LEAST)).toEqual([])
  })
})

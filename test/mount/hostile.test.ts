// What breaks under a mounted image, or lies to it: damaged blobs give EIO and never wrong bytes, huge claims take no memory.

import { spawnSync } from 'node:child_process'
import { closeSync, createWriteStream, existsSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, readlinkSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import path from 'node:path'
import { createGzip } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { CreateOptions } from '../../src/build/index.ts'
import { seal } from '../../src/format/tar/header.ts'
import { encodeEntry, endBlocks } from '../../src/format/tar/writer.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { blobEntry } from '../../src/format/rafs-v6/blob-table.ts'
import { RAFS_SUPER_EXT_OFFSET, superBlockExt } from '../../src/format/rafs-v6/super-block-ext.ts'
import { extendedInode } from '../../src/format/erofs/inode.ts'
import { dataViewOf } from '../../src/core/struct.ts'
import { MiB } from '../../src/core/units.ts'
import { build, makeTar, tarSource } from '../support/built-image.ts'
import { below, randomOf } from '../support/hostile.ts'
import { Scratch, startNydusd } from '../support/nydusd.ts'
import { terabyteImage } from '../support/one-file-image.ts'
import { peakOf, PRINT_PEAK } from '../support/peak-memory.ts'

const BUILDER = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const SEED = Number(process.env['PROPERTY_SEED'] ?? Date.now() % 2 ** 31)

type Damage = (blob: Buffer, random: () => number) => Buffer | undefined

/** Kinds of damage to a whole blob; undefined takes it away. Each is one case, on files that nobody read before. */
const DAMAGES: Readonly<Record<string, Damage>> = {
  'all flipped, from the start on': (blob) => Buffer.from(blob.map((byte) => byte ^ 0xff)),
  'flipped bits': (blob, random) => altered(blob, random, { places: 200, size: 1, change: (byte) => byte ^ (1 << below(random, 8)) }),
  'zeroed pages': (blob, random) => altered(blob, random, { places: 40, size: 4096, change: () => 0 }),
  'noise': (blob, random) => altered(blob, random, { places: 40, size: 4096, change: () => below(random, 256) }),
  'cut somewhere': (blob, random) => blob.subarray(0, below(random, blob.length)),
  'cut to nothing': () => Buffer.alloc(0),
  'gone': () => undefined,
  'a byte lost at the beginning': (blob) => blob.subarray(1),
  'halves exchanged': (blob) => Buffer.concat([blob.subarray(blob.length / 2), blob.subarray(0, blob.length / 2)]),
  'a bit in each page': (blob, random) => Buffer.from(blob.map((byte, at) => (at % 4096 === 77 ? byte ^ (1 << below(random, 8)) : byte))),
}
const GROUPS = Object.keys(DAMAGES)
const FILES_IN_GROUP = 6

function altered(blob: Buffer, random: () => number, { places, size, change }: { places: number; size: number; change: (byte: number) => number }): Buffer {
  const bytes = Buffer.from(blob)
  for (; places > 0; places--) {
    const start = below(random, bytes.length)
    for (let at = start; at < Math.min(start + size, bytes.length); at++) bytes[at] = change(bytes[at]!)
  }
  return bytes
}

interface Victim { readonly blob: string; readonly good: Buffer; readonly args: readonly string[]; readonly contents: ReadonlyMap<string, Buffer> }

/** An image with a directory of files for each kind of damage. */
async function victim(scratch: Scratch, random: () => number, { options, cache }: { options: Partial<CreateOptions>; cache: object }): Promise<Victim> {
  const contents = new Map<string, Buffer>()
  for (let file = 0; file < FILES_IN_GROUP; file++) {
    for (const [group] of GROUPS.entries()) {
      const size = [below(random, 3000), 4096, below(random, 200_000)][file % 3]! + 1
      contents.set(`${group}/${file}`, Buffer.from(Array.from({ length: size }, (_, i) => (i % 64 < 32 ? below(random, 256) : 0x61))))
    }
  }
  const image = await build(tarSource(makeTar([...contents].map(([name, data]) => ({ path: name, data })))), options)
  const [bootstrap, blobs] = [path.join(scratch.path, 'boot'), path.join(scratch.path, 'blobs')]
  mkdirSync(blobs)
  writeFileSync(bootstrap, image.bootstrap)
  const config = scratch.config(blobs, { device: { backend: { type: 'localfs', config: { dir: blobs } }, cache }, amplify_io: 0 })
  return { blob: path.join(blobs, image.blob!.blobId), good: image.bytes, args: ['--bootstrap', bootstrap, '--config', config], contents }
}

/** What reading a file of the mount gives. Anything else than bytes or EIO is thrown. */
function verdict(file: string, want: Buffer): 'right' | 'EIO' | 'wrong' {
  try {
    return readFileSync(file).equals(want) ? 'right' : 'wrong'
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EIO') return 'EIO'
    throw error
  }
}

function put(file: string, bytes: Buffer | undefined): void {
  if (bytes === undefined) rmSync(file)
  else writeFileSync(file, bytes)
}

/** In place, or as a new file over the old one. */
function mend(file: string, good: Buffer, byRenaming: boolean): void {
  const written = byRenaming ? `${file}.new` : file
  put(written, good)
  renameSync(written, file)
}

/** Damages, reads, mends and reads again, group by group. Counts what was read while damaged. */
async function damageAndMend(options: Partial<CreateOptions>, cacheOf: (scratch: Scratch) => object): Promise<Record<'right' | 'EIO' | 'wrong', number>> {
  const random = randomOf(SEED)
  using scratch = new Scratch()
  const { blob, good, args, contents } = await victim(scratch, random, { options, cache: cacheOf(scratch) })
  const count = { right: 0, EIO: 0, wrong: 0 }
  put(blob, DAMAGES[GROUPS[0]!]!(good, random))
  await using daemon = await startNydusd(scratch, args)
  const seen: string[] = []
  for (const [group, kind] of GROUPS.entries()) {
    const names = [...contents.keys()].filter((name) => name.startsWith(`${group}/`))
    const read = (name: string) => verdict(path.join(scratch.mountpoint, name), contents.get(name)!)
    put(blob, DAMAGES[kind]!(good, random))
    for (const name of names) count[read(name)]++
    expect(seen.map((name) => `${kind}: ${name} ${read(name)}`)).toEqual(seen.map((name) => `${kind}: ${name} right`)) // what was read before stays
    mend(blob, good, group % 3 === 0)
    if (count.wrong === 0) expect(names.map((name) => `${kind}: ${name} ${read(name)}`)).toEqual(names.map((name) => `${kind}: ${name} right`))
    seen.push(...names.filter((name) => read(name) === 'right'))
  }
  expect((await daemon.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state: 'RUNNING' })
  return count
}

const fileCache = (scratch: Scratch) => ({ type: 'blobcache', config: { work_dir: scratch.cache }, amplify_io: 0 })

describe('a damaged blob under a mount', () => {
  const VARIANTS: readonly (readonly [what: string, options: Partial<CreateOptions>, cache: (scratch: Scratch) => object])[] = [
    ['uncompressed', { compressor: 'none' }, fileCache],
    ['zstd, many chunks', { chunkSize: 0x4000 }, fileCache],
    ['lz4 in batches', { compressor: 'lz4_block', batchSize: 0x4000, chunkSize: 0x1_0000 }, fileCache],
    ['zstd without a cache', {}, () => ({ type: 'dummycache' })],
  ]
  it.each(VARIANTS)(`%s: EIO or right, ten kinds of damage, and right without a restart when mended (PROPERTY_SEED=${SEED})`, async (_what, options, cache) => {
    const { right, EIO, wrong } = await damageAndMend(options, cache)
    expect(wrong).toBe(0)
    expect([EIO >= 10, right >= 10, right + EIO]).toEqual([true, true, GROUPS.length * FILES_IN_GROUP])
  })

  it('shows wrong bytes where the configuration switches the verification off', async () => {
    const { wrong } = await damageAndMend({ compressor: 'none' }, (scratch) => ({ ...fileCache(scratch), validate: false }))
    expect(wrong).toBeGreaterThan(5)
  })
})

/** `bytes` with `value` at `at`, 4 or 8 bytes wide. */
function patched(bytes: Uint8Array, at: number, value: bigint, width: 4 | 8): Uint8Array {
  const copy = Uint8Array.from(bytes)
  if (width === 8) dataViewOf(copy).setBigUint64(at, value, true)
  else dataViewOf(copy).setUint32(at, Number(value), true)
  return copy
}

/** LIMIT: a daemon at rest takes some 90 MiB; a claim that is believed takes gigabytes, or all there is. */
const FLAT = 200 * MiB

describe('claims of a bootstrap', () => {
  it('of any size take no memory: refused, or EIO, or the right bytes', async () => {
    const content = Buffer.alloc(300_000, 'content ')
    const image = await build(tarSource(makeTar([{ path: 'file', data: content }, { path: 'link', type: 'symlink', link: 'file' }, { path: 'dir', type: 'directory' }])), { chunkSize: 0x1000 })
    const view = BootstrapView.open(image.bootstrap)
    const root = view.inode(view.rootNid)
    const sizeOf = (name: string) => (name === '/' ? root : view.inode(view.lookup(root, name)!.nid)).offset + extendedInode.offsetOf.size
    const blob = view.ext.blobTableOffset
    const CLAIMS: readonly (readonly [what: string, at: number, value: bigint, width: 4 | 8])[] = [
      ['nothing', 0, 0n, 4],
      ['a file of 2^52 bytes', sizeOf('file'), 2n ** 52n, 8], ['a file of a terabyte', sizeOf('file'), 2n ** 40n, 8], ['a directory of 2^45 bytes', sizeOf('dir'), 2n ** 45n, 8],
      ['a root of 2^31 bytes', sizeOf('/'), 2n ** 31n, 8], ['a link of 2^40 bytes', sizeOf('link'), 2n ** 40n, 8],
      ['four billion chunks', blob + blobEntry.offsetOf.chunkCount, 2n ** 32n - 1n, 4], ['a blob of 2^50 bytes', blob + blobEntry.offsetOf.compressedSize, 2n ** 50n, 8],
      ['2^50 bytes of data', blob + blobEntry.offsetOf.uncompressedSize, 2n ** 50n, 8], ['2^40 bytes of chunk information', blob + blobEntry.offsetOf.ciUncompressedSize, 2n ** 40n, 8],
      ['2^40 compressed bytes of it', blob + blobEntry.offsetOf.ciCompressedSize, 2n ** 40n, 8],
      ['a chunk table of 2^50 bytes', RAFS_SUPER_EXT_OFFSET + superBlockExt.offsetOf.chunkTableSize, 2n ** 50n, 8],
      ['a blob table of 4 GiB', RAFS_SUPER_EXT_OFFSET + superBlockExt.offsetOf.blobTableSize, 2n ** 32n - 256n, 4],
    ]
    const verdicts: Record<string, string> = {}
    for (const [what, at, value, width] of CLAIMS) {
      using scratch = new Scratch()
      const [boot, blobs] = [path.join(scratch.path, 'boot'), path.join(scratch.path, 'blobs')]
      mkdirSync(blobs)
      writeFileSync(path.join(blobs, image.blob!.blobId), image.bytes)
      writeFileSync(boot, patched(image.bootstrap, at, value, width))
      const { verdict: found, stderr } = await underClaim(scratch, ['--bootstrap', boot, '--config', scratch.config(blobs)], content)
      verdicts[what] = found
      expect([what, peakOf(stderr) < FLAT]).toEqual([what, true])
    }
    expect(verdicts['nothing']).toBe('right')
    expect(Object.entries(verdicts).filter(([, found]) => !['right', 'EIO', 'refused'].includes(found))).toEqual([])
    expect(Object.values(verdicts).filter((found) => found === 'refused').length).toBeGreaterThan(5)
  })

  it('of a terabyte are served in the memory of a few chunks', async () => {
    using scratch = new Scratch()
    const { boot, blob, blobId, size, chunk } = terabyteImage()
    const blobs = path.join(scratch.path, 'blobs')
    mkdirSync(blobs)
    writeFileSync(path.join(scratch.path, 'boot'), boot)
    writeFileSync(path.join(blobs, blobId), blob)
    const daemon = await startNydusd(scratch, ['--bootstrap', path.join(scratch.path, 'boot'), '--config', scratch.config(blobs)], { env: { NODE_OPTIONS: PRINT_PEAK } })
    try {
      const fd = openSync(path.join(scratch.mountpoint, 'file'), 'r')
      const random = randomOf(SEED)
      const part = Buffer.alloc(1000)
      for (let i = 0; i < 300; i++) {
        const offset = below(random, size - part.length)
        readSync(fd, part, 0, part.length, offset)
        const at = offset % chunk.length
        expect(part.equals(Buffer.concat([chunk.subarray(at, at + part.length), chunk.subarray(0, Math.max(0, at + part.length - chunk.length))]))).toBe(true)
      }
      closeSync(fd)
    } finally {
      await daemon[Symbol.asyncDispose]()
    }
    expect(peakOf((await daemon.ended).stderr)).toBeLessThan(FLAT)
  })
})

/** Mounts, and looks at everything that the claims are about. */
async function underClaim(scratch: Scratch, args: readonly string[], content: Buffer): Promise<{ verdict: string; stderr: string }> {
  const daemon = await startNydusd(scratch, args, { env: { NODE_OPTIONS: PRINT_PEAK } }).catch((error: unknown) => String(error))
  if (typeof daemon === 'string') return { verdict: /\[(FORMAT|STORAGE)_[A-Z_]+\]/.test(daemon) ? 'refused' : daemon, stderr: daemon }
  let found: string
  try {
    const file = path.join(scratch.mountpoint, 'file')
    const reads = [() => readdirSync(scratch.mountpoint), () => readdirSync(path.join(scratch.mountpoint, 'dir')), () => readlinkSync(path.join(scratch.mountpoint, 'link')), () => statSync(file)]
    const firstBytes = () => {
      const part = Buffer.alloc(content.length)
      const fd = openSync(file, 'r')
      try {
        const length = readSync(fd, part, 0, part.length, 0)
        if (!part.subarray(0, length).equals(content.subarray(0, length))) throw new Error('wrong bytes')
      } finally {
        closeSync(fd)
      }
    }
    for (const read of [...reads, firstBytes]) read()
    found = 'right'
  } catch (error) {
    found = error instanceof Error && 'code' in error && error.code === 'EIO' ? 'EIO' : String(error)
  } finally {
    await daemon[Symbol.asyncDispose]()
  }
  return { verdict: found, stderr: (await daemon.ended).stderr }
}

describe('a layer that is a bomb', () => {
  /** A tar of one header that says `size`, and as many zeros behind it, compressed a thousandfold. */
  async function bomb(file: string, { type, size }: { type: string; size: number }): Promise<void> {
    const header = Buffer.from(encodeEntry({ path: 'bomb', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, size }))
    header[156] = type.charCodeAt(0)
    seal(header)
    const gzip = createGzip({ level: 1 })
    const output = gzip.pipe(createWriteStream(file))
    gzip.write(header)
    const zeros = Buffer.alloc(4 * MiB)
    for (let left = size; left > 0; left -= zeros.length) if (!gzip.write(zeros)) await once(gzip, 'drain')
    gzip.end(endBlocks())
    await once(output, 'finish')
  }

  const KINDS: readonly (readonly [what: string, type: string, status: number])[] = [
    ['a gigabyte of zeros in a file', '0', 0], ['a PAX header of a gigabyte', 'x', 1], ['a name of a gigabyte', 'L', 1], ['a link target of a gigabyte', 'K', 1],
  ]
  it.each(KINDS)('%s: bounded memory', async (_what, type, status) => {
    using scratch = new Scratch()
    const layer = path.join(scratch.path, 'layer.tar.gz')
    await bomb(layer, { type, size: 1024 * MiB })
    const blob = path.join(scratch.path, 'blob')
    const ran = spawnSync(BUILDER, ['create', '-l', 'error', '-t', 'targz-rafs', '-B', path.join(scratch.path, 'boot'), '--blob', blob, layer], { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: PRINT_PEAK } })
    expect([ran.status, ran.stderr]).toEqual([status, status === 0 ? expect.any(String) : expect.stringMatching(/\[TAR_[A-Z_]+\]/)])
    expect(peakOf(ran.stderr)).toBeLessThan(300 * MiB)
    expect(existsSync(blob) ? statSync(blob).size : 0).toBeLessThan(2 * MiB)
  })
})

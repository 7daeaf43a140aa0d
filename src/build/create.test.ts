import { createHash } from 'node:crypto'
import { chmodSync, linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { build, type Built, builtTree, deviceOf, MemorySink, tarSource, makeTar, treeOf, DEFAULTS } from '../../test/support/built-image.ts'
import { differences, scanDirectory } from '../../test/support/expect.ts'
import { randomOf } from '../../test/support/hostile.ts'
import { BLOB_FEATURE } from '../format/rafs-v6/blob-table.ts'
import { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { readBlobTail } from '../format/blob/blob-tail.ts'
import { native } from '../native/load.ts'
import { createImage } from './create.ts'
import type { ChunkIndex } from './chunk-index.ts'

const base = mkdtempSync(path.join(tmpdir(), 'nydus-build-'))
const source = path.join(base, 'source')
const directory = { type: 'directory', path: source } as const

/** Text and noise, about 6 MB: many portions, duplicates, sizes around blocks and chunks. The same bytes each time. */
function plant(root: string, { reversed = false } = {}): void {
  const random = randomOf(7)
  const noise = (size: number) => Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256)))
  const text = (size: number) => Buffer.alloc(size, `line ${Math.floor(random() * 1e6)}\n`)
  const files: [string, Buffer][] = [
    ['empty', Buffer.alloc(0)], ['one', Buffer.from('1')], ['page', text(4096)], ['page+1', noise(4097)], ['big', Buffer.concat([noise(1_100_000), text(1_500_000)])],
    ['zeros', Buffer.alloc(2_300_000)], ...Array.from({ length: 400 }, (_, i): [string, Buffer] => [`many/f${i}`, i % 5 === 0 ? Buffer.from('same content\n') : text(50 + i * 13)]),
  ]
  for (const [name, data] of reversed ? files.toReversed() : files) {
    mkdirSync(path.join(root, path.dirname(name)), { recursive: true })
    writeFileSync(path.join(root, name), data)
  }
  mkdirSync(path.join(root, 'dir/empty'), { recursive: true })
  linkSync(path.join(root, 'page'), path.join(root, 'dir/page-alias'))
  symlinkSync('../one', path.join(root, 'dir/link'))
  chmodSync(path.join(root, 'one'), 0o4711)
  for (const [i, name] of ['dir/empty', 'dir', 'many', ...files.map(([file]) => file)].entries()) utimesSync(path.join(root, name), 0, 1_600_000_000 + i / 1000)
}

beforeAll(() => plant(source))
afterAll(() => rmSync(base, { recursive: true, force: true }))

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const entryOf = ({ bootstrap }: Built) => BootstrapView.open(bootstrap).blobs[0]!.entry

describe('create from a directory', () => {
  const VARIANTS = [
    {}, { compressor: 'none' }, { compressor: 'lz4_block', digester: 'sha256' }, { chunkSize: 0x1000 }, { batchSize: 0x10_0000 }, { batchSize: 0x1000, chunkSize: 0x1_0000, compressor: 'lz4_block' },
    { blobToc: true }, { blobToc: true, batchSize: 0x8000 },
  ] as const
  it.each(VARIANTS)('reads back as the source with %o', async (options) => {
    const image = await build(directory, options)
    // The root's time is not the source's; link times are the file system's.
    expect(await differences(scanDirectory(source).map((entry) => (entry.path === '/' ? { ...entry, mtime: [0, 0] as const } : entry)), { walk: () => builtTree(image) }, { ignoreDirectorySize: true })).toEqual([])
    expect(image.blobs).toEqual([image.blob!.blobId])
  })

  it.each(VARIANTS)('gives the same bytes with 1, 2 and 8 threads: %o', async (options) => {
    const [one, two, eight] = [await build(directory, { ...options, threads: 1 }), await build(directory, { ...options, threads: 2 }), await build(directory, { ...options, threads: 8 })]
    expect(two.bootstrap).toEqual(one.bootstrap)
    expect(eight.bootstrap).toEqual(one.bootstrap)
    expect([two.bytes.equals(one.bytes), eight.bytes.equals(one.bytes)]).toEqual([true, true])
  })

  it('gives the same bytes from another place, with files made in another order', async () => {
    const elsewhere = path.join(base, 'elsewhere/deeper')
    plant(elsewhere, { reversed: true })
    utimesSync(path.join(elsewhere, 'dir/link'), 0, 0)
    const strip = (image: Built) => builtTree(image).map(({ path: p, sha256: digest }) => [p, digest])
    const [a, b] = [await build(directory), await build({ type: 'directory', path: elsewhere })]
    expect(strip(b)).toEqual(strip(a))
    expect(b.bytes.equals(a.bytes)).toBe(true)
  })

  it('stores equal contents once', async () => {
    const image = await build(directory)
    const { chunkCount, uncompressedSize } = entryOf(image)
    // 80 files of one content are one chunk, and so are the two whole chunks of zeros.
    expect(chunkCount).toBe(1 + 1 + 1 + 3 + 2 + 320 + 1)
    expect(image.trace.registered_events).toMatchObject({ dedup_chunks: 79 + 1 })
    expect(uncompressedSize).toBe(deviceOf(image.bytes, BootstrapView.open(image.bootstrap).blobs[0]!).length)
  })

  it('names the blob by its bytes without the digests, and a registry by all of them', async () => {
    const image = await build(directory, { blobToc: true })
    const { blobId, digest, size, tocSize } = image.blob!
    expect([size, digest]).toEqual([image.bytes.length, sha256(image.bytes)])
    const { tail } = readBlobTail(image.bytes.subarray(-4096), size)
    const region = tail!.digest!
    const counted = Buffer.concat([image.bytes.subarray(0, region.offset), image.bytes.subarray(region.offset + region.compressedSize)])
    expect(sha256(counted)).toBe(blobId)
    expect(entryOf(image)).toMatchObject({ blobId, tocSize, compressedSize: size })
    expect(Buffer.from(entryOf(image).tocDigest)).toEqual(createHash('sha256').update(image.bytes.subarray(-tocSize!)).digest())
  })

  it('puts the bootstrap into the blob on request', async () => {
    const image = await build(directory, { inlineMeta: true, blobToc: true })
    const { tail } = readBlobTail(image.bytes.subarray(-4096), image.bytes.length)
    expect([tail!.boot!.uncompressedSize, Buffer.from(tail!.boot!.digest!).toString('hex')]).toEqual([image.bootstrap.length, sha256(image.bootstrap)])
    expect(entryOf(image)).toMatchObject({ blobId: 'x'.repeat(64), tocSize: 0 })
    expect(entryOf(image).features & BLOB_FEATURE.inlinedFsMeta).not.toBe(0)
    expect(image.externalBootstrap).toBeUndefined()
  })

  it('makes no blob when there is no data, unless the bootstrap goes into it', async () => {
    const empty = path.join(base, 'empty')
    mkdirSync(empty)
    const image = await build({ type: 'directory', path: empty })
    expect([image.blob, image.blobs, image.bytes.length, image.bootstrap.length]).toEqual([undefined, [], 0, 8192])
    const inlined = await build({ type: 'directory', path: empty }, { inlineMeta: true, blobToc: true })
    expect([inlined.blobs, inlined.blob!.size]).toEqual([[], inlined.bytes.length])
    expect(readBlobTail(inlined.bytes.subarray(-4096), inlined.bytes.length).tail!.boot!.uncompressedSize).toBe(8192)
  })

  it('takes chunks from a dictionary and appends its blobs as they are first used', async () => {
    const first = await build(directory)
    const next = path.join(base, 'next')
    mkdirSync(next)
    writeFileSync(path.join(next, 'a-new'), 'something new')
    writeFileSync(path.join(next, 'known'), Buffer.alloc(1 << 20))
    const image = await build({ type: 'directory', path: next }, { chunkDict: { name: 'dict.boot', bytes: first.bootstrap } })
    expect(image.blobs).toEqual([image.blob!.blobId, first.blob!.blobId])
    const tree = treeOf(image.bootstrap, new Map([[image.blob!.blobId, image.bytes], [first.blob!.blobId, first.bytes]]))
    expect(tree.find(({ path: p }) => p === '/known')!.sha256).toBe(sha256(Buffer.alloc(1 << 20)))
    await expect(build({ type: 'directory', path: next }, { chunkDict: { name: 'dict.boot', bytes: first.bootstrap }, chunkSize: 0x1_0000 })).rejects.toMatchObject({ code: 'BUILD_INCONSISTENT' })
  })

  it('lays a directory over a parent and stores only what is new', async () => {
    const parent = await build(tarSource(makeTar([{ path: 'keep', data: 'kept' }, { path: 'gone', data: 'x' }, { path: 'same', data: 'same content\n' }])))
    const upper = path.join(base, 'upper')
    mkdirSync(upper)
    writeFileSync(path.join(upper, '.wh.gone'), '')
    writeFileSync(path.join(upper, 'same'), 'same content\n')
    writeFileSync(path.join(upper, 'new'), 'new')
    const image = await build({ type: 'directory', path: upper }, { parent: { name: 'parent.boot', bytes: parent.bootstrap } })
    expect(image.blobs).toEqual([parent.blob!.blobId, image.blob!.blobId])
    const tree = treeOf(image.bootstrap, new Map([[image.blob!.blobId, image.bytes], [parent.blob!.blobId, parent.bytes]]))
    expect(tree.map(({ path: p, size }) => (p === '/' ? p : `${p} ${size}`))).toEqual(['/', '/keep 4', '/new 3', '/same 13'])
    expect(BootstrapView.open(image.bootstrap).blobs[1]!.entry.chunkCount).toBe(1)
  })

  it('gives up the blob when a file cannot be read, and names the file', async () => {
    const sink = new MemorySink()
    const lost = path.join(base, 'lost')
    mkdirSync(lost)
    writeFileSync(path.join(lost, 'file'), 'x')
    const error = createImage({ ...DEFAULTS, sink, source: { type: 'directory', path: lost }, signal: new AbortController().signal, onProgress: () => rmSync(path.join(lost, 'file'), { force: true }) })
    await expect(error).rejects.toMatchObject({ code: 'BUILD_SOURCE', message: expect.stringContaining('/lost/file') })
    expect([sink.isAborted, sink.committed]).toEqual([true, undefined])
  })

  it('stops when it is told to', async () => {
    const controller = new AbortController()
    const sink = new MemorySink()
    const running = createImage({ ...DEFAULTS, sink, source: directory, signal: controller.signal, onProgress: () => controller.abort(new Error('enough')) })
    await expect(running).rejects.toThrow('enough')
    expect(sink.isAborted).toBe(true)
  })

  it.each([[{ chunkSize: 5000 }], [{ chunkSize: 0x800 }], [{ batchSize: 3 }], [{ batchSize: 0x20_0000 }], [{ blobId: 'x', inlineMeta: true }], [{ blobId: 'y'.repeat(65) }]])('refuses %o', async (options) => {
    await expect(build(directory, options)).rejects.toMatchObject({ code: 'BUILD_INVALID_OPTION' })
  })

  it('decides and stores in order even when later portions are ready first', async () => {
    const want = await build(directory, { threads: 1 })
    const addon = native()
    const { hashSlices, compressSlices } = addon
    let calls = 0
    // Every portion is slower than the one after it.
    const late = async <T>(result: Promise<T>): Promise<T> => {
      await delay(30 - 5 * (calls++ % 6))
      return result
    }
    addon.hashSlices = (...args) => late(hashSlices(...args))
    addon.compressSlices = (...args) => late(compressSlices(...args))
    try {
      const image = await build(directory, { threads: 8 })
      expect([image.bytes.equals(want.bytes), Buffer.from(image.bootstrap).equals(want.bootstrap), calls > 10]).toEqual([true, true, true])
    } finally {
      Object.assign(addon, { hashSlices, compressSlices })
    }
  })

  // Control: with an index that forgets, the promise of `stores equal contents once` does not hold.
  it('would store contents twice without its index', async () => {
    const { ChunkIndex: Index } = await import('./chunk-index.ts')
    const find: ChunkIndex['find'] = Index.prototype.find
    Index.prototype.find = () => -1
    try {
      expect(entryOf(await build(directory)).chunkCount).toBeGreaterThan(400)
    } finally {
      Index.prototype.find = find
    }
  })
})

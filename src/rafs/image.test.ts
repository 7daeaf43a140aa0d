// An image under bad conditions: damage, losses, races. Never a wrong byte.

import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../test/support/backends.ts'
import { expectOfCase, VECTORS } from '../../test/support/expect.ts'
import { bootstrapOf, mutated, mutations } from '../../test/support/vectors.ts'
import { subscribe } from '../core/diagnostics.ts'
import { CodedError, isCoded } from '../core/errors.ts'
import { openSharedImage, RafsImage, type OpenImageOptions } from './image.ts'
import { prefetchImage } from './prefetch.ts'
import { resolvePath } from './resolve.ts'

const { signal } = new AbortController()
let cacheDirectory: string
let opened: RafsImage[] = []
beforeEach(() => { cacheDirectory = mkdtempSync(path.join(tmpdir(), 'rafs-image-')) })
afterEach(async () => {
  for (const image of opened) await image.close()
  opened = []
  rmSync(cacheDirectory, { recursive: true, force: true })
})

const backendOf = (name: string): MemoryBackend => {
  const { blobs }: { blobs: { id: string; file: string }[] } = JSON.parse(readFileSync(path.join(VECTORS, name, 'case.json'), 'utf8'))
  return new MemoryBackend(blobs.map(({ id, file }) => [id, readFileSync(path.join(VECTORS, file))] as const))
}
const open = async (name: string, backend: MemoryBackend, over: Partial<OpenImageOptions> = {}): Promise<RafsImage> => {
  const image = await RafsImage.open({ bootstrap: path.join(VECTORS, name, bootstrapOf(name).file), backend, cacheDirectory, signal, ...over })
  opened.push(image)
  return image
}
const close = async (image: RafsImage): Promise<void> => {
  opened = opened.filter((other) => other !== image)
  await image.close()
}
const filesOf = (name: string) => expectOfCase(name)!.filter(({ type, size }) => type === 'reg' && size! > 0)
const read = async (image: RafsImage, file: string, own = signal): Promise<string> => {
  const inode = resolvePath(image.view, file)
  const bytes = Buffer.alloc(inode.size)
  expect(await image.readInto(inode, 0, bytes, { signal: own })).toBe(inode.size)
  return createHash('sha256').update(bytes).digest('hex')
}

/** Reads all files: how many are right, how many gave an error. Fails for a wrong byte. */
async function readAll(image: RafsImage, name: string): Promise<{ right: number; failed: number }> {
  const counts = { right: 0, failed: 0 }
  for (const { path: file, sha256 } of filesOf(name)) {
    try {
      expect(await read(image, file), file).toBe(sha256)
      counts.right++
    } catch (error) {
      if (!isCoded(error)) throw error
      counts.failed++
    }
  }
  return counts
}

const KINDS = ['v6-small-none', 'v6-small-zstd', 'v6-batch-4k-lz4', 'v6-blob-toc', 'merge-config']

describe('a damaged backend', () => {
  it.each(KINDS)('gives an error or right bytes, wherever a byte of %s is flipped', async (name) => {
    let failures = 0
    for (const [id, blob] of backendOf(name).blobs) {
      for (let step = 0; step <= 24; step++) {
        const at = Math.min(blob.length - 1, Math.floor(blob.length * step / 24))
        const damaged = Uint8Array.from(blob)
        damaged[at]! ^= 0x10
        const backend = backendOf(name)
        backend.blobs.set(id, damaged)
        const image = await RafsImage.open({ bootstrap: path.join(VECTORS, name, 'image.boot'), backend, signal })
        failures += (await readAll(image, name)).failed
        await image.close()
      }
    }
    expect(failures).toBeGreaterThan(20)
  })

  it('would serve wrong bytes if digests were not verified', async () => {
    const backend = backendOf('v6-small-none')
    for (const blob of backend.blobs.values()) blob.fill(0x55, 0, 4096)
    const image = await open('v6-small-none', backend, { verify: false }) // the safeguard switched off
    await expect(readAll(image, 'v6-small-none')).rejects.toThrow(/expected/)
  })

  it('gives what lies before the end of a truncated blob', async () => {
    const backend = backendOf('v6-small-none')
    const [[id, blob]] = [...backend.blobs] as [[string, Uint8Array]]
    const warm = await open('v6-small-none', backend)
    await warm.blobs[0]!.layout({ signal }) // its chunk information lies at the end
    backend.blobs.set(id, blob.subarray(0, 200_000))
    const { right, failed } = await readAll(warm, 'v6-small-none')
    expect(right).toBeGreaterThan(3)
    expect(failed).toBeGreaterThan(0)
  })

  it('is asked once more for a chunk that came wrong, and the reader sees nothing of it', async () => {
    const backend = backendOf('v6-small-zstd')
    const corrupt: string[] = []
    const end = subscribe('storage:chunk:corrupt', ({ source }) => corrupt.push(source))
    const image = await open('v6-small-zstd', backend, { amplifyBytes: 0 })
    await image.blobs[0]!.layout({ signal })
    let damaged = false
    backend.after = (bytes) => { if (!damaged) bytes[bytes.length - 1]! ^= 1; damaged = true; return bytes }
    const { path: file, sha256 } = filesOf('v6-small-zstd').at(-1)!
    expect(await read(image, file)).toBe(sha256)
    expect(corrupt).toEqual(['backend'])
    expect(image.cacheMetrics.corruptChunks).toBe(1)
    end()
  })

  it('recovers without a restart once the fault is gone', async () => {
    const backend = backendOf('v6-small-zstd')
    const image = await open('v6-small-zstd', backend)
    backend.before = () => { throw new CodedError('STORAGE_UNREACHABLE', 'down') }
    expect((await readAll(image, 'v6-small-zstd')).right).toBe(0)
    backend.before = () => {}
    expect((await readAll(image, 'v6-small-zstd')).failed).toBe(0)
  })
})

describe('a damaged bootstrap', () => {
  const base = readFileSync(path.join(VECTORS, 'should-fail/base.boot'))
  it.each(mutations().map((mutation) => [mutation.name, mutation] as const))('%s: no file gives anything but bytes or a coded error', async (_, mutation) => {
    const image = await open('v6-small-zstd', backendOf('v6-small-zstd'), { bootstrap: mutated(base, mutation) }).catch(codedOnly)
    // what upstream refuses to mount is refused here
    if (mutation.check.exit === 1 && mutation.nydusd.mount === 'refused') expect(image).toBeUndefined()
    if (image !== undefined) for (const { path: file } of filesOf('v6-small-zstd')) await readHead(image, file).catch(codedOnly)
  })
})

function codedOnly(error: unknown): undefined {
  if (!isCoded(error)) throw error
}

/** Reads what a damaged inode says is there, up to 4 MiB. */
async function readHead(image: RafsImage, file: string): Promise<void> {
  const inode = resolvePath(image.view, file)
  const target = Buffer.alloc(Math.min(inode.size, 4 << 20))
  expect(await image.readInto(inode, 0, target, { signal })).toBe(target.length)
}

describe('readers at once', () => {
  it('fetch each chunk once', async () => {
    const backend = backendOf('v6-rich-chunk64k')
    backend.before = () => new Promise((resolve) => setTimeout(resolve, 2))
    const image = await open('v6-rich-chunk64k', backend)
    await Promise.all(Array.from({ length: 4 }, () => Promise.all(filesOf('v6-rich-chunk64k').map(async ({ path: file, sha256 }) => expect(await read(image, file)).toBe(sha256)))))
    const data = backend.requests.filter(({ offset }) => offset < image.view.blobs[0]!.dataSize)
    expect(overlaps(data)).toBe(0)
  })

  it('fetch each chunk once across two mounts of one cache directory', async () => {
    const backend = backendOf('v6-rich-chunk64k')
    backend.before = () => new Promise((resolve) => setTimeout(resolve, 2))
    const images = [await open('v6-rich-chunk64k', backend), await open('v6-rich-chunk64k', backend)]
    await Promise.all(images.map((image) => readAll(image, 'v6-rich-chunk64k')))
    const data = backend.requests.filter(({ offset }) => offset < images[0]!.view.blobs[0]!.dataSize)
    expect(overlaps(data)).toBe(0)
  })

  it('would be caught if they fetched a chunk twice', async () => {
    const backend = backendOf('v6-rich-chunk64k')
    const images = [await open('v6-rich-chunk64k', backend), await open('v6-rich-chunk64k', backend, { cacheDirectory: path.join(cacheDirectory, 'other') })] // nothing is shared
    await Promise.all(images.map((image) => readAll(image, 'v6-rich-chunk64k')))
    expect(overlaps(backend.requests.filter(({ offset }) => offset < images[0]!.view.blobs[0]!.dataSize))).toBeGreaterThan(0)
  })

  it('keep the fetch alive for the one that stays', async () => {
    const backend = backendOf('v6-small-zstd')
    const image = await open('v6-small-zstd', backend)
    let go = () => {}
    const gate = new Promise<void>((resolve) => { go = resolve })
    await image.blobs[0]!.layout({ signal })
    backend.before = () => gate
    const { path: file, sha256 } = filesOf('v6-small-zstd')[0]!
    const leaver = new AbortController()
    const leaving = read(image, file, leaver.signal)
    const staying = read(image, file)
    await new Promise(setImmediate)
    leaver.abort(new Error('gone'))
    await expect(leaving).rejects.toThrow('gone')
    go()
    expect(await staying).toBe(sha256)
  })

  it('abort the request when the last one leaves, and the next reader gets a new one', async () => {
    const backend = backendOf('v6-small-zstd')
    const image = await open('v6-small-zstd', backend)
    await image.blobs[0]!.layout({ signal })
    let aborted = 0
    backend.before = (_, inner) => new Promise((_resolve, reject) => inner.addEventListener('abort', () => { aborted++; reject(inner.reason) }))
    const leaver = new AbortController()
    const { path: file, sha256 } = filesOf('v6-small-zstd')[0]!
    const leaving = read(image, file, leaver.signal)
    await new Promise(setImmediate)
    leaver.abort(new Error('gone'))
    await expect(leaving).rejects.toThrow('gone')
    expect(aborted).toBe(1)
    backend.before = () => {}
    expect(await read(image, file)).toBe(sha256)
  })
})

/** Bytes that were asked for more than once. */
function overlaps(requests: readonly { offset: number; length: number }[]): number {
  const sorted = [...requests].sort((a, b) => a.offset - b.offset)
  return sorted.reduce((sum, { offset }, i) => sum + Math.max(0, i === 0 ? 0 : sorted[i - 1]!.offset + sorted[i - 1]!.length - offset), 0)
}

describe('a cache directory', () => {
  const dataFile = () => path.join(cacheDirectory, readdirSync(cacheDirectory).find((name) => name.endsWith('.blob.data'))!)

  it('is healed where it is damaged, and nobody sees it', async () => {
    const backend = backendOf('v6-small-none')
    const first = await open('v6-small-none', backend)
    await readAll(first, 'v6-small-none')
    await close(first)
    const bytes = readFileSync(dataFile())
    for (let at = 100; at < bytes.length; at += 20_000) bytes[at]! ^= 1
    writeFileSync(dataFile(), bytes)
    const asked = backend.requests.length
    const second = await open('v6-small-none', backend)
    expect(await readAll(second, 'v6-small-none')).toMatchObject({ failed: 0 })
    expect(second.cacheMetrics.corruptChunks).toBeGreaterThan(3)
    expect(backend.requests.length).toBeGreaterThan(asked)
    await close(second)
    const healed = backend.requests.length
    const third = await open('v6-small-none', backend)
    expect(await readAll(third, 'v6-small-none')).toMatchObject({ failed: 0 })
    expect(backend.requests).toHaveLength(healed)
  })

  it('is served from after it lost its tail while in use', async () => {
    const image = await open('v6-small-none', backendOf('v6-small-none'))
    await readAll(image, 'v6-small-none')
    truncateSync(dataFile(), 4096)
    expect(await readAll(image, 'v6-small-none')).toMatchObject({ failed: 0 })
  })

  it('that upstream\'s nydusd left its maps in is used without a fetch of chunk information', async () => {
    for (const [kind, name] of [['v6', 'v6-small-zstd'], ['v6-batch', 'v6-batch-4k-lz4'], ['v6-toc', 'v6-blob-toc']] as const) {
      const backend = backendOf(name)
      const { blobId, dataSize } = (await open(name, backend, { cacheDirectory: path.join(cacheDirectory, 'x') })).view.blobs[0]!
      const directory = path.join(cacheDirectory, kind)
      cpSync(path.join(VECTORS, 'nydusd-runtime', `${kind}.blob.meta`), path.join(directory, `${blobId}.blob.meta`))
      const image = await open(name, backend, { cacheDirectory: directory })
      expect(await readAll(image, name)).toMatchObject({ failed: 0 })
      expect(backend.requests.every(({ offset }) => offset < dataSize)).toBe(true)
    }
  })

  it('holds what upstream\'s nydusd would have left there', async () => {
    const image = await open('v6-small-zstd', backendOf('v6-small-zstd'))
    await readAll(image, 'v6-small-zstd')
    await close(image)
    const sums = Object.fromEntries(readdirSync(cacheDirectory).map((file) => [file, createHash('sha256').update(readFileSync(path.join(cacheDirectory, file))).digest('hex')]))
    const theirs: Record<string, { files: Record<string, { sha256: string }> }> = JSON.parse(readFileSync(path.join(VECTORS, 'nydusd-runtime', 'cache-files.json'), 'utf8'))
    for (const [file, { sha256 }] of Object.entries(theirs['v6']!.files)) expect(sums[file], file).toBe(sha256)
  })

  it.each(['v6-batch-4k-lz4', 'v6-blob-toc'])('is mended where the chunk information of %s rots, wherever that is', async (name) => {
    await close(await open(name, backendOf(name)).then(async (image) => { await readAll(image, name); return image }))
    const metas = readdirSync(cacheDirectory).filter((entry) => entry.endsWith('.blob.meta')).map((entry) => path.join(cacheDirectory, entry))
    for (const meta of metas) {
      const right = readFileSync(meta)
      const used = right.subarray(0, -4096).findLastIndex((byte) => byte !== 0) + 1
      for (let at = 0; at < used + 64; at += Math.max(1, Math.floor(used / 25))) {
        for (const data of readdirSync(cacheDirectory).filter((entry) => /data|map/.test(entry))) rmSync(path.join(cacheDirectory, data))
        const damaged = Uint8Array.from(right)
        damaged[at < used ? at : right.length - 4096 + at - used]! ^= 1 << (at % 8)
        writeFileSync(meta, damaged)
        const image = await open(name, backendOf(name))
        expect(await readAll(image, name), `byte ${at}`).toMatchObject({ failed: 0 })
        await close(image)
      }
    }
  })

  it.each(['v6-blob-toc', 'merge-config', 'v6-small-zstd'])('is enough for %s when the backend is gone', async (name) => {
    const first = await open(name, backendOf(name))
    expect(await readAll(first, name)).toMatchObject({ failed: 0 })
    await close(first)
    const gone = new MemoryBackend([])
    const second = await open(name, gone)
    expect(await readAll(second, name)).toMatchObject({ failed: 0 })
    expect(gone.requests).toEqual([])
    await close(second)
    // a digest that rots is not believed
    for (const file of readdirSync(cacheDirectory).filter((entry) => entry.endsWith('.blob.digest'))) {
      const bytes = readFileSync(path.join(cacheDirectory, file))
      bytes[5]! ^= 1
      writeFileSync(path.join(cacheDirectory, file), bytes)
    }
    expect(await readAll(await open(name, backendOf(name)), name)).toMatchObject({ failed: 0 })
  })

  it('that cannot be used is done without', async () => {
    writeFileSync(path.join(cacheDirectory, 'file'), '')
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    const image = await open('v6-small-zstd', backendOf('v6-small-zstd'), { cacheDirectory: path.join(cacheDirectory, 'file') })
    expect(await readAll(image, 'v6-small-zstd')).toMatchObject({ failed: 0 })
    expect(reasons).not.toEqual([])
    end()
  })
})

describe('readInto', () => {
  it('is short at the end of a file only, and empty behind it', async () => {
    const image = await open('v6-small-none', backendOf('v6-small-none'))
    const inode = resolvePath(image.view, filesOf('v6-small-none')[0]!.path)
    const target = Buffer.alloc(inode.size + 10, 0xee)
    expect(await image.readInto(inode, 1, target, { signal })).toBe(inode.size - 1)
    expect([...target.subarray(inode.size - 1)].every((byte) => byte === 0xee)).toBe(true)
    expect(await image.readInto(inode, inode.size, target, { signal })).toBe(0)
    expect(await image.readInto(inode, inode.size + 4096, target, { signal })).toBe(0)
  })

  it('refuses a file that claims more of a chunk than there is, also when the chunk is ready', async () => {
    const image = await open('v6-small-none', backendOf('v6-small-none'))
    await readAll(image, 'v6-small-none')
    const inode = resolvePath(image.view, filesOf('v6-small-none')[0]!.path)
    await expect(image.readInto({ ...inode, size: inode.size + 1 }, 0, Buffer.alloc(10), { signal })).rejects.toMatchObject({ code: 'FORMAT_INVALID' })
  })
})

describe('a replica in another thread', () => {
  it('locates what the owner has made ready, and nothing else', async () => {
    const image = await open('v6-small-none', backendOf('v6-small-none'))
    const replica = openSharedImage(structuredClone(image.share()))
    const { path: file } = filesOf('v6-small-none').find(({ size }) => size! > 4096)!
    const inode = resolvePath(replica.view, file)
    const extents: number[][] = []
    const sink = { push: (...extent: number[]) => extents.push(extent) }
    expect(replica.locate(inode, 1, 100, sink)).toBe(false)
    await read(image, file)
    expect(replica.locate(inode, 1, 100, sink)).toBe(true)
    expect(extents).toMatchObject([[image.blobs[0]!.cache!.dataFd, expect.any(Number), 100]])
    replica.close()
  })
})

describe('prefetch', () => {
  it('of everything leaves nothing to fetch, and counts what it did', async () => {
    const backend = backendOf('v6-rich-chunk64k')
    const image = await open('v6-rich-chunk64k', backend)
    await prefetchImage(image, { config: { threads: 2, batchSize: 1 << 18, bandwidthLimit: 0, prefetchAll: true }, signal })
    const asked = backend.requests.length
    expect(await readAll(image, 'v6-rich-chunk64k')).toMatchObject({ failed: 0 })
    expect(backend.requests).toHaveLength(asked)
    expect(image.cacheMetrics).toMatchObject({ prefetchWorkers: 0, partialHits: 0, wholeHits: image.cacheMetrics.total })
    expect(image.cacheMetrics.prefetchRequestsCount).toBeGreaterThan(2)
  })

  it('takes the files given, and directories with all below', async () => {
    const backend = backendOf('v6-small-none')
    const image = await open('v6-small-none', backend, { amplifyBytes: 0 })
    const { path: file } = filesOf('v6-small-none')[0]!
    await prefetchImage(image, { config: { threads: 1, batchSize: 1, bandwidthLimit: 0, prefetchAll: false }, files: [file, '/does/not/exist'].map((path) => ({ path, range: undefined })), signal })
    const inode = resolvePath(image.view, file)
    expect(image.locate(inode, 0, inode.size, { push() {} })).toBe(true)
    expect(backend.requests.filter(({ prefetch }) => prefetch).length).toBeGreaterThan(0)
  })

  it('gives up on a backend that is down, and fails nobody', async () => {
    const backend = backendOf('v6-rich-chunk64k')
    const image = await open('v6-rich-chunk64k', backend)
    await image.blobs[0]!.layout({ signal })
    backend.before = () => { throw new CodedError('STORAGE_UNREACHABLE', 'down') }
    await prefetchImage(image, { config: { threads: 2, batchSize: 1, bandwidthLimit: 0, prefetchAll: true }, signal })
    expect(backend.requests.length).toBeLessThan(20)
  })
})

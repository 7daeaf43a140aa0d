// Reading through the mount: many at once, interrupted, damaged and mended, huge.

import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, lstatSync, mkdirSync, openSync, closeSync, readdirSync, readFileSync, readSync, readlinkSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { largeBootstrap } from '../support/large-image.ts'
import { terabyteImage } from '../support/one-file-image.ts'
import { eventually, pause, Scratch, startNydusd } from '../support/nydusd.ts'

const run = promisify(execFile)
const CASE = 'v6-rich-chunk64k'
const BOOT = path.join(VECTORS, CASE, 'image.boot')
const files = expectOfCase(CASE)!.filter(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name))
const largest = files.reduce((a, b) => a.size! > b.size! ? a : b)
const blobId = '7742c4046b1df426cb310f2193214f403bb4c8eacd29e251ee1963b7d7d2cd3f'

const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

/** The image with blobs of its own, to damage. */
function ownBlobs(scratch: Scratch): { args: string[]; blob: string } {
  const blobs = path.join(scratch.path, 'blobs')
  mkdirSync(blobs)
  cpSync(path.join(VECTORS, 'blobs', blobId), path.join(blobs, blobId))
  return { args: ['--bootstrap', BOOT, '--config', scratch.config(blobs)], blob: path.join(blobs, blobId) }
}

/** A registry with one blob that answers only after `answer()`. */
async function slowRegistry(blob: string): Promise<AsyncDisposable & { readonly host: string; readonly waiting: number; readonly bytes: number; answer(): void }> {
  const content = readFileSync(blob)
  const held: (() => void)[] = []
  let open = false
  let bytes = 0
  const server = createServer((request, response) => {
    const respond = (): void => {
      if (!request.url!.includes('/blobs/')) {
        response.writeHead(200).end()
        return
      }
      const [, first, last] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []
      const part = first === undefined ? content : content.subarray(Number(first), last ? Number(last) + 1 : undefined)
      bytes += part.length
      response.writeHead(first === undefined ? 200 : 206, { 'content-length': part.length, ...(first !== undefined && { 'content-range': `bytes ${first}-${Number(first) + part.length - 1}/${content.length}` }) })
      response.end(request.method === 'HEAD' ? undefined : part)
    }
    if (open || !request.url!.includes('/blobs/')) respond()
    else held.push(respond)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    host: `127.0.0.1:${address.port}`,
    get waiting() { return held.length },
    get bytes() { return bytes },
    answer() {
      open = true
      for (const respond of held.splice(0)) respond()
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('reads through a mount', () => {
  it('give eight readers at once the same right bytes, each chunk fetched once', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config()])
    const script = 'import sys,hashlib,random\nfs=sys.stdin.read().split("\\0")\nrandom.seed(int(sys.argv[1]));random.shuffle(fs)\nfor f in fs: print(hashlib.sha256(open(f,"rb").read()).hexdigest(),f,sep="\\0")'
    const list = files.map(({ path: name }) => scratch.mountpoint + name).join('\0')
    const want = files.map(({ path: name, sha256: digest }) => `${digest}\0${scratch.mountpoint}${name}`).sort()
    const outputs = await Promise.all(Array.from({ length: 8 }, (_, seed) => {
      const reading = run('python3', ['-c', script, String(seed)], { maxBuffer: 2 ** 26 })
      reading.child.stdin!.end(list)
      return reading
    }))
    for (const { stdout } of outputs) expect(stdout.trim().split('\n').sort()).toEqual(want)
    const { body } = await daemon.ask('GET', '/api/v1/metrics/backend')
    // SAFETY: the shape that the API documents.
    expect((body as { read_amount_total: number }).read_amount_total).toBeLessThanOrEqual(statSync(path.join(VECTORS, 'blobs', blobId)).size + 64 * 1024)
  })

  it('are EIO while the blob is damaged, never wrong bytes, and right at once when it is mended', async () => {
    using scratch = new Scratch()
    const { args, blob } = ownBlobs(scratch)
    const good = readFileSync(blob)
    const bad = Buffer.from(good)
    for (let at = 0; at < bad.length - 200_000; at += 512) bad[at]! ^= 0x55
    writeFileSync(blob, bad)
    await using _daemon = await startNydusd(scratch, args)
    const file = scratch.mountpoint + largest.path
    expect(() => readFileSync(file)).toThrow(/EIO/)
    expect(() => readFileSync(file)).toThrow(/EIO/)
    writeFileSync(blob, good)
    expect(sha256(file)).toBe(largest.sha256)
  })

  it('notice a cache file that was cut short under the daemon: EIO or the right bytes, never zeros', async () => {
    using scratch = new Scratch()
    {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config()])
      expect(sha256(scratch.mountpoint + largest.path)).toBe(largest.sha256)
    }
    truncateSync(path.join(scratch.cache, `${blobId}.blob.data`), 4096)
    await using _daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config()])
    expect(sha256(scratch.mountpoint + largest.path)).toBe(largest.sha256)
  })

  it('fetch again what a running daemon\'s cache file has lost, whether cut in the middle or at its start: never EIO, never zeros', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config()])
    const wrong = (): string[] => files.filter(({ path: name, sha256: digest }) => sha256(scratch.mountpoint + name) !== digest).map(({ path: name }) => name)
    expect(wrong()).toEqual([])
    const data = path.join(scratch.cache, `${blobId}.blob.data`)
    const { size } = statSync(data)
    for (const length of [Math.floor(size / 2) + 100, 0]) {
      truncateSync(data, length)
      await run('python3', ['-c', 'import os,sys\nfor f in sys.argv[1:]: os.posix_fadvise(os.open(f, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)', ...files.map(({ path: name }) => scratch.mountpoint + name)])
      expect(wrong()).toEqual([])
      expect(statSync(data).size).toBe(size)
    }
    expect((await daemon.ask('GET', '/api/v1/daemon')).status).toBe(200)
  })

  it('can be interrupted while the registry says nothing: hits go on, the killed reader is gone at once, the next one gets the bytes', async () => {
    using scratch = new Scratch()
    await using registry = await slowRegistry(path.join(VECTORS, 'blobs', blobId))
    const config = path.join(scratch.path, 'registry.json')
    writeFileSync(config, JSON.stringify({
      version: 2, backend: { type: 'registry', registry: { scheme: 'http', host: registry.host, repo: 'a/b', timeout: 60 } }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
    }))
    await using daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', config])
    const file = scratch.mountpoint + largest.path
    const reader = spawn('head', ['-c', '10', file], { stdio: 'ignore' })
    await eventually(() => registry.waiting > 0, 'the registry is asked')
    // chunk information may have been asked for before the reader came
    await eventually(async () => /"opcode":15\b/.test(JSON.stringify((await daemon.ask('GET', '/api/v1/metrics/inflight')).body ?? [])), 'the read is under way')
    expect(readdirSync(scratch.mountpoint).length).toBeGreaterThan(0)
    const gone = new Promise((resolve) => reader.once('exit', (_status, signal) => resolve(signal)))
    reader.kill('SIGKILL')
    expect(await Promise.race([gone, pause(3000)])).toBe('SIGKILL')
    registry.answer()
    expect((await run('sha256sum', [file])).stdout).toContain(largest.sha256)
    expect((await daemon.ask('GET', '/api/v1/metrics/inflight')).status).toBe(204)
    expect(registry.bytes).toBeGreaterThan(0)
  })

  it('are ended by SIGTERM though the registry never answers', async () => {
    using scratch = new Scratch()
    await using registry = await slowRegistry(path.join(VECTORS, 'blobs', blobId))
    const config = path.join(scratch.path, 'registry.json')
    writeFileSync(config, JSON.stringify({
      device: { backend: { type: 'registry', config: { scheme: 'http', host: registry.host, repo: 'a/b', timeout: 600 } }, cache: { type: 'blobcache', config: { work_dir: scratch.cache } } }, mode: 'direct',
    }))
    await using daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', config])
    const reader = spawn('head', ['-c', '10', scratch.mountpoint + largest.path], { stdio: 'ignore' })
    await eventually(() => registry.waiting > 0, 'the registry is asked')
    const began = Date.now()
    daemon.child.kill('SIGTERM')
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect(Date.now() - began).toBeLessThan(5000)
    expect(scratch.isMounted()).toBe(false)
    reader.kill('SIGKILL')
  })

  it('reach every corner: unaligned ranges, the end, and beyond it', async () => {
    using scratch = new Scratch()
    await using _daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config()])
    const whole = readFileSync(scratch.mountpoint + largest.path)
    expect(createHash('sha256').update(whole).digest('hex')).toBe(largest.sha256)
    const fd = openSync(scratch.mountpoint + largest.path, 'r')
    try {
      for (const [offset, length] of [[0, 1], [65_535, 2], [65_536, 65_537], [whole.length - 1, 10], [whole.length, 10], [whole.length + 2 ** 40, 10]] as const) {
        const part = Buffer.alloc(length)
        const size = readSync(fd, part, 0, length, offset)
        expect(part.subarray(0, size)).toEqual(whole.subarray(offset, offset + length))
      }
    } finally {
      closeSync(fd)
    }
  })

  it('refuse writing, on a writable mount too', async () => {
    using scratch = new Scratch()
    for (const args of [[], ['--writable']]) {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config(), ...args])
      for (const attempt of [() => writeFileSync(scratch.mountpoint + largest.path, 'x'), () => mkdirSync(`${scratch.mountpoint}/new`), () => truncateSync(scratch.mountpoint + largest.path, 1)]) {
        expect(attempt).toThrow(/EROFS/)
      }
    }
  })
})

describe('huge things', () => {
  it('a directory of a million entries is listed whole, once each', async () => {
    using scratch = new Scratch()
    const boot = path.join(scratch.path, 'boot')
    writeFileSync(boot, largeBootstrap([1_000_000]))
    await using _daemon = await startNydusd(scratch, ['--bootstrap', boot, '--config', scratch.config()])
    const { stdout } = await run('sh', ['-c', 'ls -U "$1" | sort | uniq | wc -l', 'sh', path.join(scratch.mountpoint, 'directory-0')], { timeout: 120_000 })
    expect(Number(stdout)).toBe(1_000_000)
    expect(lstatSync(path.join(scratch.mountpoint, 'directory-0/file-with-a-name-999999')).size).toBe(4096)
    expect(() => readlinkSync(path.join(scratch.mountpoint, 'directory-0/file-with-a-name-999999'))).toThrow(/EINVAL/)
  })

  it('a file of a terabyte has its size, and is readable at both ends', async () => {
    using scratch = new Scratch()
    const { boot, blob, blobId: id, size, chunk } = terabyteImage()
    writeFileSync(path.join(scratch.path, 'boot'), boot)
    const blobs = path.join(scratch.path, 'blobs')
    mkdirSync(blobs)
    writeFileSync(path.join(blobs, id), blob)
    await using _daemon = await startNydusd(scratch, ['--bootstrap', path.join(scratch.path, 'boot'), '--config', scratch.config(blobs)])
    const file = path.join(scratch.mountpoint, 'file')
    expect(statSync(file).size).toBe(size)
    const fd = openSync(file, 'r')
    try {
      for (const offset of [0, 2 ** 32 - 100, size - 200]) {
        const part = Buffer.alloc(200)
        expect(readSync(fd, part, 0, 200, offset)).toBe(200)
        const at = offset % chunk.length
        expect(part).toEqual(Buffer.concat([chunk, chunk]).subarray(at, at + 200))
      }
    } finally {
      closeSync(fd)
    }
  })
})

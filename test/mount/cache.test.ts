// A cache directory under real daemons: what nydusctl says of it, what it finds damaged, what it takes away, and what is served without a backend.

import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { RafsImage, resolvePath } from '../../src/rafs/index.ts'
import { MemoryBackend } from '../support/backends.ts'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { oneFileImage } from '../support/one-file-image.ts'
import { eventually, Scratch, startNydusd, type RunningDaemon } from '../support/nydusd.ts'

const CASE = 'v6-rich-chunk64k'
const BOOT = path.join(VECTORS, CASE, 'image.boot')
const BLOB = '7742c4046b1df426cb310f2193214f403bb4c8eacd29e251ee1963b7d7d2cd3f'
const files = expectOfCase(CASE)!.filter(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name))
const NYDUSCTL = path.resolve(import.meta.dirname, '../../bin/nydusctl')

/** Fails for a wrong byte; the number of files that could be read. */
function readAll(mountpoint: string): number {
  let read = 0
  for (const { path: name, sha256 } of files) {
    try {
      expect(createHash('sha256').update(readFileSync(path.join(mountpoint, name))).digest('hex'), name).toBe(sha256)
      read++
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EIO')) throw error
    }
  }
  return read
}

interface Report { readonly status: number; readonly out: string; readonly json: Record<string, unknown> & { blobs?: Record<string, unknown>[] } }

function nydusctl(...args: string[]): Promise<Report> {
  return new Promise((resolve, reject) => execFile(process.execPath, [NYDUSCTL, ...args], (error, stdout, stderr) => {
    const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
    if (status < 0) reject(error)
    else resolve({ status, out: stdout + stderr, json: args.includes('--json') && stdout !== '' ? JSON.parse(stdout) : {} })
  }))
}

/** Blobs of the image in a directory of their own, so that they can be taken away. */
function ownBlobs(scratch: Scratch): string {
  const blobs = path.join(scratch.path, 'blobs')
  mkdirSync(blobs)
  cpSync(path.join(VECTORS, 'blobs', BLOB), path.join(blobs, BLOB))
  return blobs
}
const start = (scratch: Scratch, config: string): Promise<RunningDaemon> => startNydusd(scratch, ['--bootstrap', BOOT, '--config', config])
const stop = async (scratch: Scratch, daemon: RunningDaemon): Promise<void> => {
  await daemon[Symbol.asyncDispose]()
  await eventually(() => !scratch.isMounted(), 'the mount is gone')
}
const used = (directory: string) => readdirSync(directory).reduce((sum, name) => sum + statSync(path.join(directory, name)).blocks * 512, 0)

describe('a cache directory', () => {
  it('is listed with its users, kept while it is used, verified, mended and cleared by nydusctl', async () => {
    using scratch = new Scratch()
    const config = scratch.config(ownBlobs(scratch))
    const daemon = await start(scratch, config)
    expect(readAll(scratch.mountpoint)).toBe(files.length)
    const listed = await nydusctl('cache', 'ls', '--dir', scratch.cache, '--json')
    expect(listed.json.blobs).toMatchObject([{ blob_id: BLOB, in_use: true, owner: { bootstrap: BOOT } }])
    expect(JSON.stringify(listed.json.blobs)).toContain(`"pid":${daemon.pid}`)
    expect((await nydusctl('cache', 'ls', '--dir', scratch.cache)).out).toContain(`nydusd ${daemon.pid}`)
    expect((await nydusctl('cache', 'gc', '--dir', scratch.cache, '--json')).json['removed']).toEqual([])
    await stop(scratch, daemon)

    expect(await nydusctl('cache', 'verify', '--dir', scratch.cache)).toMatchObject({ status: 0, out: expect.stringContaining('intact: ') })
    const data = path.join(scratch.cache, `${BLOB}.blob.data`)
    const bytes = readFileSync(data)
    for (let at = 5000; at < bytes.length; at += 400_000) bytes[at]! ^= 1
    writeFileSync(data, bytes)
    const damaged = await nydusctl('cache', 'verify', '--dir', scratch.cache, '--json', '--repair')
    expect(damaged).toMatchObject({ status: 1, json: { blobs: [{ status: 'damaged' }] } })
    expect(await nydusctl('cache', 'verify', '--dir', scratch.cache)).toMatchObject({ status: 0 })

    const gone = await nydusctl('cache', 'gc', '--dir', scratch.cache, '--json')
    expect(gone.json['removed']).toMatchObject([{ blob_id: BLOB }])
    expect(readdirSync(scratch.cache)).toEqual([])
    expect(await nydusctl('cache', 'ls', '--dir', path.join(scratch.path, 'nothing'))).toMatchObject({ status: 1 })
    expect(await nydusctl('cache', 'ls')).toMatchObject({ status: 2 })
  })

  it('is enough: with the backend gone, a daemon that is started again serves all of it, and what is damaged once the backend is back', async () => {
    using scratch = new Scratch()
    const blobs = ownBlobs(scratch)
    const config = scratch.config(blobs)
    const filling = await start(scratch, config)
    expect(readAll(scratch.mountpoint)).toBe(files.length)
    await stop(scratch, filling)
    renameSync(blobs, `${blobs}.away`)
    const offline = await start(scratch, config)
    expect(readAll(scratch.mountpoint)).toBe(files.length)
    await stop(scratch, offline)
    // bit rot in data, map and chunk information
    for (const kind of ['data', 'data.chunk_map', 'meta']) {
      const file = path.join(scratch.cache, `${BLOB}.blob.${kind}`)
      const bytes = readFileSync(file)
      bytes[kind === 'meta' ? 24 : bytes.length >>> 1]! ^= 4
      writeFileSync(file, bytes)
    }
    const damaged = await start(scratch, config)
    readAll(scratch.mountpoint) // nothing wrong is shown
    renameSync(`${blobs}.away`, blobs)
    expect(readAll(scratch.mountpoint)).toBe(files.length)
    await stop(scratch, damaged)
  })

  it('is kept within its quota by two daemons together, which serve every byte', async () => {
    using one = new Scratch()
    using other = new Scratch()
    const quota = 2 << 20
    const config = (scratch: Scratch): string => scratch.config(undefined, {
      device: { backend: { type: 'localfs', config: { dir: path.join(VECTORS, 'blobs') } }, cache: { type: 'blobcache', config: { work_dir: one.cache, quota } } }, amplify_io: 65536,
    })
    const daemons = [await start(one, config(one)), await startNydusd(other, ['--bootstrap', path.join(VECTORS, 'v6-small-none', 'image.boot'), '--config', config(other)])]
    let most = 0
    const watch = setInterval(() => { most = Math.max(most, existsSync(one.cache) ? used(one.cache) : 0) }, 5)
    for (let round = 0; round < 2; round++) {
      await Promise.all(files.map(async ({ path: name, sha256 }) => {
        expect(createHash('sha256').update(await readFile(path.join(one.mountpoint, name))).digest('hex'), name).toBe(sha256)
      }))
    }
    clearInterval(watch)
    expect(most).toBeGreaterThan(quota / 2)
    expect(most).toBeLessThanOrEqual(quota + 65536)
    for (const daemon of daemons) await daemon[Symbol.asyncDispose]()
  })

  it('lets a hundred images mount at once while no backend answers, without a look at their bytes, and one that is damaged stops nobody', async () => {
    using scratch = new Scratch()
    // a server that takes connections and says nothing
    const silent = createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const address = silent.address()
    if (typeof address !== 'object' || address === null) throw new Error('no port')
    const config = JSON.stringify({
      version: 2, backend: { type: 'registry', registry: { scheme: 'http', host: `127.0.0.1:${address.port}`, repo: 'app' } }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } }, rafs: {},
    })
    const { signal } = new AbortController()
    const contents: Buffer[] = []
    for (let i = 0; i < 100; i++) {
      const content = randomBytes(100_000 + i)
      const { boot, blob, blobId } = oneFileImage({ chunkSize: 65536, chunks: [content.subarray(0, 65536), content.subarray(65536)] })
      writeFileSync(path.join(scratch.path, `${i}.boot`), i === 41 ? boot.subarray(0, 2000) : boot)
      const image = await RafsImage.open({ bootstrap: boot, backend: new MemoryBackend([[blobId, blob]]), cacheDirectory: scratch.cache, signal })
      await image.readInto(resolvePath(image.view, '/file'), 0, Buffer.alloc(content.length), { signal })
      await image.close()
      contents.push(content)
    }
    await using daemon = await startNydusd(scratch, [])
    const began = performance.now()
    const answers = await Promise.all(contents.map((_, i) =>
      daemon.ask('POST', `/api/v1/mount?mountpoint=/${i}`, JSON.stringify({ fs_type: 'rafs', source: path.join(scratch.path, `${i}.boot`), config }))))
    const took = performance.now() - began
    process.stdout.write(`100 cached images mounted in ${took.toFixed(0)} ms\n`)
    expect(took).toBeLessThan(10_000)
    expect(answers.map(({ status }, i) => [i, status]).filter(([, status]) => status !== 204)).toEqual([[41, 500]])
    const read = await Promise.all(contents.map((content, i) => i === 41 || readFile(path.join(scratch.mountpoint, String(i), 'file')).then((bytes) => bytes.equals(content))))
    expect(read.every(Boolean)).toBe(true)
    silent.close()
  })
})

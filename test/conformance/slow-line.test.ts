// The planner over real HTTP and a line with delays: which requests are made, what a read waits for, what becomes of a request that hangs.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { KiB, MiB } from '../../src/core/units.ts'
import { prefetchImage, RafsImage, resolvePath } from '../../src/rafs/index.ts'
import { createRangeFetcher } from '../../src/registry/index.ts'
import { RangedBackend } from '../../src/storage/backend/ranged.ts'
import { pause } from '../support/nydusd.ts'
import { oneFileImage } from '../support/one-file-image.ts'

const CHUNK = 64 * KiB
const COUNT = 256
const chunks = Array.from({ length: COUNT }, () => randomBytes(CHUNK))
const made = oneFileImage({ chunks, chunkSize: CHUNK })
const dataSize = COUNT * CHUNK
const { signal } = new AbortController()

interface Request { readonly from: number; readonly to: number; closedEarly: boolean }

/** A registry with one blob, behind a line. */
class Line implements AsyncDisposable {
  readonly requests: Request[] = []
  delayMs = 0
  /** What a request for data does instead of being answered. */
  act: (request: Request, response: ServerResponse, body: Buffer) => void = (_request, response, body) => { response.end(body) }
  readonly #server = createServer((asked, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(asked.headers.range ?? '')?.map(Number) ?? []
    if (from === undefined || to === undefined) { response.writeHead(400).end(); return }
    const body = Buffer.from(made.blob.subarray(from, to + 1))
    const request = { from, to: to + 1, closedEarly: false }
    response.on('close', () => { request.closedEarly = !response.writableFinished })
    setTimeout(() => {
      const headers = { 'content-length': body.length, 'content-range': `bytes ${from}-${to}/${made.blob.length}` }
      if (from >= dataSize) { response.writeHead(206, headers).end(body); return } // chunk information
      this.requests.push(request)
      response.writeHead(206, headers)
      response.flushHeaders()
      this.act(request, response, body)
    }, this.delayMs)
  })

  async image(cacheDirectory: string): Promise<RafsImage> {
    if (!this.#server.listening) await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    const { port } = this.#server.address() as AddressInfo
    const backend = new RangedBackend(createRangeFetcher({ host: `127.0.0.1:${port}`, repository: 'r' }, { plainHttp: true, credentials: undefined }))
    const image = await RafsImage.open({ bootstrap: made.boot, backend, cacheDirectory, retry: { retries: 3, timeoutMs: 10_000 }, signal })
    await image.blobs[0]!.layout({ signal })
    return image
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

let directory: string
let line: Line
const images: RafsImage[] = []
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-line-'))
  line = new Line()
})
afterEach(async () => {
  for (const image of images.splice(0)) await image.close()
  await line[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})
const open = async (): Promise<RafsImage> => {
  const image = await line.image(directory)
  images.push(image)
  return image
}

/** Reads chunk `index` of the file and compares it. */
async function readChunk(image: RafsImage, index: number, own = signal): Promise<void> {
  const target = Buffer.alloc(CHUNK)
  expect(await image.readInto(resolvePath(image.view, '/file'), index * CHUNK, target, { signal: own })).toBe(CHUNK)
  expect(target.equals(chunks[index]!)).toBe(true)
}
const overlap = (requests: readonly Request[]): number => {
  const sorted = [...requests].sort((a, b) => a.from - b.from)
  return sorted.reduce((sum, { from }, i) => sum + Math.max(0, i === 0 ? 0 : sorted[i - 1]!.to - from), 0)
}

describe('a read', () => {
  it('has its bytes while the range around it still arrives', async () => {
    let goOn = (): void => {}
    line.act = (request, response, body) => {
      const wanted = 101 * CHUNK - request.from
      response.write(body.subarray(0, wanted + 100))
      goOn = () => response.end(body.subarray(wanted + 100))
    }
    const image = await open()
    await readChunk(image, 100)
    expect(line.requests).toHaveLength(1)
    expect(line.requests[0]!.to).toBeGreaterThan(102 * CHUNK)
    expect(image.blobs[0]!.isReady({ index: 102, offset: 102 * CHUNK, size: CHUNK })).toBe(false)
    goOn()
    await readChunk(image, 102)
    expect(line.requests).toHaveLength(1)
  })

  it('is answered although the first request hangs, by a second one', async () => {
    let hung = 0
    line.act = (_request, response, body) => { if (hung++ > 0) response.end(body) }
    const image = await open()
    const began = Date.now()
    await readChunk(image, 100)
    expect(Date.now() - began).toBeLessThan(8000) // the deadline of an attempt would be 10 s
    expect(line.requests).toHaveLength(2)
    expect(line.requests[1]).toMatchObject({ from: line.requests[0]!.from, to: line.requests[0]!.to })
    await expect.poll(() => line.requests[0]!.closedEarly).toBe(true)
  })

  it('takes its request with it when it leaves, and the next one gets another', async () => {
    line.act = () => {}
    const image = await open()
    const leaver = new AbortController()
    const reading = readChunk(image, 100, leaver.signal)
    await expect.poll(() => line.requests.length).toBe(1)
    leaver.abort(new Error('gone'))
    await expect(reading).rejects.toThrow('gone')
    await expect.poll(() => line.requests[0]!.closedEarly).toBe(true)
    line.act = (_request, response, body) => { response.end(body) }
    await readChunk(image, 100)
  })

  it('goes before a prefetch, which pauses in the middle of its range meanwhile', async () => {
    let answer = (): void => {}
    line.act = (request, response, body) => {
      if (request.from < 64 * CHUNK) { answer = () => response.end(body); return }
      let at = 0
      const next = (): void => {
        if (response.destroyed) return
        response.write(body.subarray(at, at += 32 * KiB))
        if (at < body.length) setTimeout(next, 20)
        else response.end()
      }
      next()
    }
    const image = await open()
    const places = Array.from({ length: 64 }, (_, i) => ({ index: 192 + i, offset: (192 + i) * CHUNK, size: CHUNK }))
    const ready = (): number => places.filter((place) => image.blobs[0]!.isReady(place)).length
    const prefetch = image.prefetch(0, places, { signal })
    await expect.poll(ready).toBeGreaterThan(0)
    const reading = readChunk(image, 10)
    await expect.poll(() => line.requests.length).toBe(2)
    await pause(100) // what had come is decoded
    const before = ready()
    await pause(300) // time for five chunks
    expect(ready()).toBe(before)
    answer()
    await reading
    await prefetch
    expect(ready()).toBe(places.length)
  })
})

describe('many reads', () => {
  it('make few requests: neighbours come along, and more of them where more is read', async () => {
    line.delayMs = 5
    const image = await open()
    // a program's way through a package: forth and back, with holes
    for (const index of [40, 44, 36, 60, 52, 70, 90, 81, 100, 130, 111, 150, 140, 170, 120, 180]) await readChunk(image, index)
    expect(line.requests.length).toBeLessThanOrEqual(8)
    expect(overlap(line.requests)).toBe(0)
  })

  it('at once, over two mounts of one cache directory, fetch each byte once', async () => {
    line.delayMs = 3
    const both = [await open(), await open()]
    const order = Array.from({ length: COUNT }, (_, i) => (i * 37) % COUNT)
    await Promise.all(both.flatMap((image) => [0, 1, 2, 3].map(async (reader) => {
      for (const index of order.slice(reader * 60)) await readChunk(image, index)
    })))
    expect(overlap(line.requests)).toBe(0)
    expect(line.requests.reduce((sum, { from, to }) => sum + to - from, 0)).toBeLessThanOrEqual(dataSize)
  })

  it('find what a trace has listed: fetched in the order of its use, and nothing besides', async () => {
    const image = await open()
    const part = (index: number, count: number) => ({ path: '/file', range: { offset: index * CHUNK, length: count * CHUNK } })
    line.delayMs = 20
    const files = [part(200, 4), part(10, 1), part(11, 1), part(100, 30)]
    const prefetch = prefetchImage(image, { config: { threads: 1, batchSize: MiB, bandwidthLimit: 0, prefetchAll: false }, files, signal })
    await expect.poll(() => line.requests.length).toBeGreaterThan(0)
    await readChunk(image, 120) // joins what is on its way, or takes its own listed neighbours along
    await prefetch
    expect(line.requests[0]!.from).toBe(200 * CHUNK)
    expect(line.requests.reduce((sum, { from, to }) => sum + to - from, 0)).toBe(36 * CHUNK)
    const asked = line.requests.length
    for (const index of [200, 203, 10, 11, 100, 129]) await readChunk(image, index)
    expect(line.requests).toHaveLength(asked)
  })

  it('need no network any more when everything was downloaded in the background', async () => {
    const image = await open()
    await readChunk(image, 77)
    await prefetchImage(image, { config: { threads: 3, batchSize: MiB, bandwidthLimit: 0, prefetchAll: false, backgroundDownload: true }, files: [], signal })
    expect(image.cacheMetrics.dataAllReady).toBe(true)
    await line[Symbol.asyncDispose]()
    for (let index = 0; index < COUNT; index++) await readChunk(image, index)
    expect(overlap(line.requests)).toBe(0)
  })

  it('keep to a bandwidth where one is set', async () => {
    const image = await open()
    const began = performance.now()
    await prefetchImage(image, { config: { threads: 4, batchSize: MiB, bandwidthLimit: 32 * MiB, prefetchAll: true }, files: [], signal })
    expect(performance.now() - began).toBeGreaterThan(dataSize / (32 * MiB) * 1000 * 0.8)
  })

  it('find everything there after a prefetch of all, in a few large requests', async () => {
    const image = await open()
    await prefetchImage(image, { config: { threads: 2, batchSize: MiB, bandwidthLimit: 0, prefetchAll: true }, signal })
    const asked = line.requests.length
    expect(asked).toBeLessThanOrEqual(dataSize / MiB + 1)
    for (let index = 0; index < COUNT; index += 17) await readChunk(image, index)
    expect(line.requests).toHaveLength(asked)
  })
})

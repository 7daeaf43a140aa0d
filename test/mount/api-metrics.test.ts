// The numbers of the API after a known workload: what the test's own server sent, what the test itself read.

import { execFile } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { KiB, MiB } from '../../src/core/units.ts'
import { FILE_SIZE, faultImage } from '../support/fault-case.ts'
import { startFaultServer } from '../support/fault-server.ts'
import { eventually, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { serveBlobs } from '../support/serve-blobs.ts'

const CASE = 'v6-rich-chunk64k'
const BOOT = path.join(VECTORS, CASE, 'image.boot')
const BLOB = '7742c4046b1df426cb310f2193214f403bb4c8eacd29e251ee1963b7d7d2cd3f'
const SECRET = 'c2VjcmV0OnBhc3N3b3Jk'

function configOf(scratch: Scratch, host: string, change: object = {}): string {
  return JSON.stringify({
    device: { id: '/app', backend: { type: 'registry', config: { scheme: 'http', host, repo: 'app', auth: SECRET } }, cache: { type: 'blobcache', config: { work_dir: scratch.cache } } },
    mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false }, iostats_files: true, access_pattern: true, latest_read_files: true, ...change,
  })
}

// SAFETY: the documented shapes; a wrong one fails the test.
const get = async (daemon: RunningDaemon, url: string): Promise<Record<string, unknown>> => (await daemon.ask('GET', url)).body as Record<string, unknown>
const sum = (list: unknown): number => (list as number[]).reduce((all, one) => all + one, 0)

/** Reads each file whole, from the daemon: pages that the kernel has are dropped first. In a process of its own: this one is the server. */
async function readAll(files: readonly string[]): Promise<void> {
  const reading = promisify(execFile)('python3', ['-c', `
import os, sys
for name in sys.stdin.read().split("\\0"):
    fd = os.open(name, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(fd, 1 << 20): pass
    os.close(fd)`])
  reading.child.stdin?.end(files.join('\0'))
  await reading
}

describe('metrics after a known workload', () => {
  it('are what the server sent and what the readers read, by mount and by file', async () => {
    using scratch = new Scratch()
    const blob = readFileSync(path.join(VECTORS, 'blobs', BLOB))
    await using server = await serveBlobs(new Map([[`sha256:${BLOB}`, blob]]), { folder: '/v2/app/blobs' })
    await using daemon = await startNydusd(scratch, [])
    expect(await daemon.ask('POST', '/api/v1/mount?mountpoint=%2Fapp', JSON.stringify({ fs_type: 'rafs', source: BOOT, config: configOf(scratch, server.host) }))).toMatchObject({ status: 204 })
    const all = expectOfCase(CASE)!.filter(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name)).map((entry) => path.join(scratch.mountpoint, 'app', entry.path))
    const byInode = new Map(all.map((file) => [statSync(file, { bigint: true }).ino, file])) // hard links are one file
    const files = [...byInode.values()].toReversed()
    const size = sum(files.map((file) => statSync(file).size))
    const nids = files.map((file) => Number(statSync(file, { bigint: true }).ino & 0xffff_ffffn))

    await readAll(files)
    const first = await get(daemon, '/api/v1/metrics?id=%2Fapp')
    expect(first).toMatchObject({ data_read: size, files_account_enabled: true, access_pattern_enabled: true, record_latest_read_files_enabled: true })
    const requests = server.seen.filter(({ method, url }) => method === 'GET' && url!.includes('/blobs/'))
    // a range that hangs on a busy machine is asked for twice, and the second answer is given up: requests count, bytes count once
    const sent = sum([...new Set(requests.map(({ headers }) => headers.range ?? ''))].map((range) => {
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? []
      return from === undefined ? blob.length : Math.min(Number(to), blob.length - 1) - Number(from) + 1
    }))
    const backend = await get(daemon, '/api/v1/metrics/backend?id=%2Fapp')
    expect(backend).toMatchObject({ backend_type: 'registry', read_count: requests.length, read_errors: 0, read_amount_total: sent })
    expect(sum(backend['read_count_block_size_dist'])).toBe(requests.length)

    await readAll(files)
    const again = await get(daemon, '/api/v1/metrics?id=%2Fapp')
    expect(again['data_read']).toBe(2 * size)
    expect(sum(again['block_count_read'])).toBe(sum(again['read_latency_dist']))
    expect((await get(daemon, '/api/v1/metrics/backend?id=%2Fapp'))['read_amount_total']).toBe(sent)
    const reads = sum(again['block_count_read'])
    const cache = await get(daemon, '/api/v1/metrics/blobcache?id=%2Fapp')
    expect(cache).toMatchObject({ underlying_files: [`${BLOB}.blob.data`], store_path: scratch.cache, total: reads })
    expect(cache['whole_hits']).toBeGreaterThanOrEqual(reads - sum(first['block_count_read']))
    expect(cache['whole_hits']).toBeLessThan(reads)
    expect((await daemon.ask('GET', '/api/v1/metrics/blobcache?id=app')).body).toEqual(cache)

    const counted = await get(daemon, '/api/v1/metrics/files?id=%2Fapp')
    for (const [i, nid] of nids.entries()) expect(counted[nid], files[i]).toMatchObject({ data_read: 2 * statSync(files[i]!).size })
    // SAFETY: as above.
    const pattern = (await get(daemon, '/api/v1/metrics/pattern?id=%2Fapp')) as unknown as { ino: number; nr_read: number }[]
    expect(pattern.map(({ ino }) => ino)).toEqual(nids)
    const latest = async (): Promise<number[]> => {
      // SAFETY: as above.
      const ranges = (await get(daemon, '/api/v1/metrics/files?id=%2Fapp&latest=true')) as unknown as number[][]
      return ranges.flatMap(([from, to = from]) => Array.from({ length: to! - from! + 1 }, (_, i) => from! + i))
    }
    expect(await latest()).toEqual(nids.toSorted((a, b) => a - b))
    expect(await latest()).toEqual([])
    await readAll(files.slice(0, 1))
    expect(await latest()).toEqual(nids.slice(0, 1))

    expect(await get(daemon, '/api/v1/daemon/backend?mountpoint=%2Fapp')).toMatchObject({ magic: 0xe0f5e1e2, version: 1536, chunk_size: 65536, is_chunk_dict: false })
    expect(await daemon.ask('GET', '/api/v1/metrics/inflight')).toEqual({ status: 204, body: undefined })
    for (const [url, word] of [['', 'GlobalMetrics'], ['/files', 'FsFilesMetrics'], ['/pattern', 'Pattern'], ['/backend', 'BackendMetrics'], ['/blobcache', 'BlobcacheMetrics']]) {
      expect(await daemon.ask('GET', `/api/v1/metrics${url}?id=%2Fnone`)).toMatchObject({ status: 404, body: { code: 'UNDEFINED', message: expect.stringContaining(`${word}(Metrics(Stats(NoCounter)))`) } })
    }
  })

  it('of a prefetch and of a backend that fails are what the server saw', async () => {
    using scratch = new Scratch()
    const image = await faultImage()
    await using server = await startFaultServer(image)
    await using daemon = await startNydusd(scratch, [])
    const source = path.join(scratch.path, 'boot')
    writeFileSync(source, image.bootstrap)
    const config = JSON.stringify({
      version: 2, id: '/app', backend: { type: 'registry', registry: { scheme: 'http', host: server.host, repo: 'a/b' } }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
      rafs: { prefetch: { enable: true, threads: 2, prefetch_all: true } },
    })
    server.fault = ({ response }) => {
      if (server.hit.prefetch + server.hit.demand >= 5) server.fault = undefined
      response.writeHead(503).end()
    }
    expect((await daemon.ask('POST', '/api/v1/mount?mountpoint=/app', JSON.stringify({ fs_type: 'rafs', source, config }))).status).toBe(204)
    await eventually(async () => (await get(daemon, '/api/v1/metrics/blobcache?id=/app'))['data_all_ready'] === true, 'everything is there', 60_000)
    const content = FILE_SIZE * 20 + 8 * MiB
    const chunks = Math.ceil(FILE_SIZE / (64 * KiB)) * 20 + 128
    expect(await get(daemon, '/api/v1/metrics/blobcache?id=/app')).toMatchObject({
      prefetch_data_amount: content, prefetch_unmerged_chunks: chunks, entries_count: chunks, prefetch_workers: 0, total: 0, whole_hits: 0, partial_hits: 0, buffered_backend_size: 0,
    })
    const { demand, prefetch, other } = server.requests
    const hit = server.hit.demand + server.hit.prefetch
    const backend = await get(daemon, '/api/v1/metrics/backend?id=/app')
    expect(backend).toMatchObject({ read_count: demand + prefetch + other, read_errors: hit })
    expect(backend['read_amount_total']).toBe(server.sentBytes)
  })

  it('count nothing by file where nobody asked for it, and keep errors for the one who asks later, without secrets', async () => {
    using scratch = new Scratch()
    await using server = await serveBlobs(new Map(), { folder: '/v2/app/blobs' })
    await using daemon = await startNydusd(scratch, [])
    const plain = configOf(scratch, server.host, { iostats_files: false, access_pattern: false, latest_read_files: false })
    await daemon.ask('POST', '/api/v1/mount?mountpoint=%2Fapp', JSON.stringify({ fs_type: 'rafs', source: BOOT, config: plain }))
    expect(await get(daemon, '/api/v1/daemon/events')).toEqual({ max_errors: 500, total_errors: 0, max_size: 51200, total_size: 0, errors: [] })
    const file = expectOfCase(CASE)!.find(({ type, size }) => type === 'reg' && size! > 0)!
    await expect(readAll([path.join(scratch.mountpoint, 'app', file.path)])).rejects.toThrow(/Errno 5/)
    expect(await get(daemon, '/api/v1/metrics/files')).toEqual({})
    expect(await get(daemon, '/api/v1/metrics/pattern')).toEqual([])
    expect(await get(daemon, '/api/v1/metrics/files?latest=true')).toEqual([])
    const stats = await get(daemon, '/api/v1/metrics')
    expect((stats['fop_errors'] as number[])[4]).toBeGreaterThan(0)
    const events = await get(daemon, '/api/v1/daemon/events')
    expect(events['errors']).toEqual(expect.arrayContaining([expect.stringMatching(/^\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT - .*\[STORAGE_NOT_FOUND\]/)]))
    expect(events['total_errors']).toBe((events['errors'] as string[]).length)
    for (const url of ['/api/v1/daemon', '/api/v1/daemon/events', '/api/v1/config?id=%2Fapp', '/api/v2/metrics']) expect(JSON.stringify(await get(daemon, url))).not.toMatch(/c2VjcmV0|password/)
  })
})

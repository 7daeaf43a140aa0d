import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import * as diagnostics from 'node:diagnostics_channel'
import { request, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { CodedError } from '../core/errors.ts'
import { BlobcacheMetrics } from '../storage/index.ts'
import { createCounterMemory } from './counters.ts'
import { type ApiDaemon, ApiServer } from './http-api.ts'

const version = { package_ver: 'v1', git_commit: 'c', build_time: 't', profile: 'release', rustc: 'n' }

let directory: string
let socket: string
let server: ApiServer | undefined
const levels: string[] = []
const stop = vi.fn(() => Promise.resolve({ error: undefined, stuck: false }))

// SAFETY: the routes under test read these fields of a mount only.
const mount = { mountpoint: '/', mountedAt: new Date('2026-01-02T03:04:05.600Z'), shownConfig: { version: 2 }, counters: createCounterMemory(1), accounts: () => undefined, trace: () => {}, fileSystem: { type: 'Rafs', image: { id: '/12', backendMetrics: { read_count: 3 }, cacheMetrics: Object.assign(new BlobcacheMetrics('/cache'), { total: 4, wholeHits: 1 }) } } } as unknown as ReturnType<ApiDaemon['mounts']>[number]

const refuse = async (): Promise<void> => { throw new CodedError('SERVE_NOT_READY', 'not yet') }

function daemon(change: Partial<ApiDaemon> = {}): ApiDaemon {
  return {
    id: '', supervisor: undefined, state: 'RUNNING', takeOver: refuse, start: () => { throw new CodedError('SERVE_STATE', 'unexpected event') }, sendState: refuse, stop,
    mounts: () => [mount], addMount: async () => {}, addErofs: async () => {}, replaceMount: async () => {}, removeMount: async () => {}, inflight: () => [], ...change,
  }
}

async function start(change: Partial<ApiDaemon> = {}): Promise<void> {
  server = await ApiServer.listen(daemon(change), { socket, version, events: {}, setLogLevel: (level) => levels.push(level) })
}

function ask(method: string, url: string, body?: string): Promise<{ status: number; body: unknown }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: socket, method, path: url, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => { text += part })
        .on('end', () => resolve({ status: response.statusCode ?? 0, body: text === '' ? undefined : JSON.parse(text) }))
    })
    sent.on('error', reject).end(body)
  })
}

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-api-'))
  socket = path.join(directory, 'api.sock')
})
afterEach(() => {
  server?.close()
  server = undefined
  rmSync(directory, { recursive: true })
})

describe('the HTTP API', () => {
  it('describes the daemon in upstream\'s shape', async () => {
    await start()
    expect(await ask('GET', '/api/v1/daemon')).toEqual({
      status: 200,
      body: {
        version, id: null, supervisor: null, state: 'RUNNING',
        backend_collection: { '/': { backend_type: 'Rafs', mountpoint: '/', mounted_time: '2026-01-02 03:04:05.6 +00:00:00', config: { version: 2 } } },
      },
    })
    expect((await ask('GET', '/api/v2/daemon')).body).not.toHaveProperty('backend_collection')
  })

  it('serves metrics by mountpoint, or of the only instance; cache metrics by configuration id', async () => {
    await start()
    expect((await ask('GET', '/api/v1/metrics?id=%2F')).body).toMatchObject({ id: '/', data_read: 0, measure_latency: true })
    expect((await ask('GET', '/api/v1/metrics')).status).toBe(200)
    expect((await ask('GET', '/api/v1/metrics/backend')).body).toEqual({ read_count: 3 })
    expect((await ask('GET', '/api/v1/metrics/blobcache?id=12')).body).toMatchObject({ total: 4, whole_hits: 1, store_path: '/cache' })
    expect(await ask('GET', '/api/v1/metrics?id=/13')).toMatchObject({ status: 404, body: { message: expect.stringContaining('Metrics(Stats(NoCounter))') } })
  })

  it('says 404 when there are several instances and no id', async () => {
    await start({ mounts: () => [mount, mount] })
    expect((await ask('GET', '/api/v1/metrics')).status).toBe(404)
  })

  it('lists reads in flight, or 204', async () => {
    await start()
    expect(await ask('GET', '/api/v1/metrics/inflight')).toEqual({ status: 204, body: undefined })
    server?.close()
    await start({ inflight: () => [{ serial: 1, inode: 5, opcode: 15, unique: 7n, at: 1999 }] })
    expect((await ask('GET', '/api/v1/metrics/inflight')).body).toEqual([{ inode: 5, opcode: 15, unique: 7, timestamp_secs: 1 }])
  })

  it('ends the daemon without unmounting, after it answered', async () => {
    await start()
    expect((await ask('PUT', '/api/v1/daemon/exit')).status).toBe(204)
    await vi.waitFor(() => expect(stop).toHaveBeenCalledWith({ unmount: false }))
  })

  it('changes the log level, and refuses what is none', async () => {
    await start()
    expect((await ask('PUT', '/api/v1/daemon', '{"log_level":"debug"}')).status).toBe(204)
    expect(levels).toEqual(['debug'])
    for (const body of ['{"log_level":"loud"}', '{', '[]', '']) expect((await ask('PUT', '/api/v1/daemon', body)).status, body).toBe(400)
    expect((await ask('PUT', '/api/v1/daemon', 'x'.repeat(2 ** 20 + 1))).status).toBe(400)
  })

  it('answers unknown paths with 404 and wrong methods with 400, as JSON errors', async () => {
    await start()
    expect(await ask('GET', '/api/v1/nothing')).toEqual({ status: 404, body: { code: 'UNDEFINED', message: 'no such path: /api/v1/nothing' } })
    expect(await ask('POST', '/api/v1/daemon')).toMatchObject({ status: 400, body: { code: 'UNDEFINED' } })
    expect((await ask('PUT', '/api/v1/daemon/start')).status).toBe(400)
    expect((await ask('PUT', '/api/v1/daemon/fuse/sendfd')).status).toBe(503)
  })

  it('replaces a stale socket file and removes its own', async () => {
    writeFileSync(socket, '')
    await start()
    expect((await ask('GET', '/api/v1/daemon')).status).toBe(200)
    server?.close()
    expect(existsSync(socket)).toBe(false)
  })

  it('never reaps a connection that says nothing: every timeout of its server is off', async () => {
    let timeouts: unknown
    // SAFETY: Node documents { request, socket, response, server } for this channel.
    const look = (message: unknown): void => {
      const { headersTimeout, requestTimeout, timeout, keepAliveTimeout } = (message as { server: Server }).server
      timeouts = { headersTimeout, requestTimeout, timeout, keepAliveTimeout }
    }
    diagnostics.subscribe('http.server.request.start', look)
    try {
      await start()
      await ask('GET', '/api/v1/daemon')
      expect(timeouts).toEqual({ headersTimeout: 0, requestTimeout: 0, timeout: 0, keepAliveTimeout: 0 })
    } finally {
      diagnostics.unsubscribe('http.server.request.start', look)
    }
  })

  it('refuses a socket path that cannot be listened on, by name', async () => {
    await expect(ApiServer.listen(daemon(), { socket: path.join(directory, 'none', 'api.sock'), version, events: {}, setLogLevel: () => {} }))
      .rejects.toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('none/api.sock') })
  })

  it('passes what the kernel is to mount on, and refuses a way that does not exist', async () => {
    const asked: unknown[] = []
    await start({ addErofs: async (wanted) => { asked.push(wanted) } })
    const body = { fs_type: 'erofs', source: '/b', config: '{}' }
    expect(await ask('POST', '/api/v1/mount?mountpoint=/mnt', JSON.stringify(body))).toMatchObject({ status: 204 })
    expect(await ask('POST', '/api/v1/mount?mountpoint=/mnt', JSON.stringify({ ...body, fill: 'fileio' }))).toMatchObject({ status: 204 })
    expect(asked).toEqual(['auto', 'fileio'].map((fill) => ({ mountpoint: '/mnt', source: '/b', config: '{}', prefetchFiles: undefined, fill })))
    expect(await ask('POST', '/api/v1/mount?mountpoint=/mnt', JSON.stringify({ ...body, fill: 'magic' }))).toMatchObject({ status: 400 })
  })
})

// Planted secrets: passwords, tokens, keys, signed addresses. They are looked for wherever a daemon writes or answers while everything fails.

import { execFile } from 'node:child_process'
import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../support/expect.ts'
import { rangeOf } from '../support/fault-server.ts'
import { type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { Supervised } from '../support/storm.ts'

const run = promisify(execFile)
const BLOB = '7742c4046b1df426cb310f2193214f403bb4c8eacd29e251ee1963b7d7d2cd3f'
const BOOT = path.join(VECTORS, 'v6-rich-chunk64k/image.boot')
const blob = readFileSync(path.join(VECTORS, 'blobs', BLOB))

/** Every secret has this in it; those in base64 are looked for as they are. */
const MARK = 'pl4nted'
const basic = (password: string): string => Buffer.from(`me:${MARK}-${password}`).toString('base64')
const ENCODED = ['first', 'second', 'environment', 'helper'].map(basic)
const API = ['/api/v1/daemon', '/api/v2/daemon', '/api/v1/config', '/api/v1/config?id=/', '/api/v1/metrics', '/api/v1/metrics/backend', '/api/v1/metrics/blobcache', '/api/v1/metrics/inflight', '/api/v1/daemon/events', '/api/v1/daemon/backend', '/metrics', '/nothing']

function leaksIn(what: string, text: string): string[] {
  const found = [MARK, ...ENCODED].filter((secret) => text.includes(secret))
  return found.map((secret) => `${what}: …${text.slice(Math.max(0, text.indexOf(secret) - 80), text.indexOf(secret) + 20)}…`)
}

/** All files below `directory` but those in which the test wrote secrets itself. */
function leaksBelow(directory: string, own: readonly string[]): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => !name.startsWith('mnt') && !own.includes(name)).flatMap((name) => {
    const file = path.join(directory, name)
    return statSync(file).isFile() ? leaksIn(name, readFileSync(file, 'latin1')) : []
  })
}

async function leaksOf(daemon: RunningDaemon): Promise<string[]> {
  const answers: string[] = []
  for (const url of API) {
    const answer = await daemon.ask('GET', url).catch((error: unknown) => String(error))
    answers.push(...leaksIn(`GET ${url}`, JSON.stringify(answer)))
  }
  return [...answers, ...leaksIn('arguments', readFileSync(`/proc/${daemon.pid}/cmdline`, 'latin1'))]
}

interface Failing extends AsyncDisposable { readonly host: string; requests: number }

/** Refuses most requests and says in its answer what it was sent, as registries and proxies do. */
async function failing(serve: (request: IncomingMessage, response: ServerResponse, count: number) => boolean): Promise<Failing> {
  const state = { requests: 0 }
  const server = createServer((request, response) => {
    state.requests++
    if (serve(request, response, state.requests)) return
    const range = rangeOf(request)
    const bytes = range === undefined ? blob : blob.subarray(range.from, range.to + 1)
    response.writeHead(range === undefined ? 200 : 206, range === undefined ? {} : { 'content-range': `bytes ${range.from}-${range.from + bytes.length - 1}/${blob.length}` }).end(request.method === 'HEAD' ? undefined : bytes)
  })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  return Object.assign(state, {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() { server.closeAllConnections(); await new Promise((resolve) => { server.close(resolve) }) },
  })
}

const echo = (request: IncomingMessage): string => JSON.stringify({ errors: [{ code: 'DENIED', message: `you sent ${JSON.stringify(request.headers)} to ${request.url}` }] })

function configured(scratch: Scratch, backend: object): string[] {
  writeFileSync(path.join(scratch.path, 'config.json'), JSON.stringify({ version: 2, backend, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } } }))
  return ['--bootstrap', BOOT, '--config', path.join(scratch.path, 'config.json'), '--log-level', 'trace', '--log-file', path.join(scratch.path, 'log/nydusd')]
}

const files = (scratch: Scratch): string[] => readdirSync(scratch.mountpoint, { recursive: true, encoding: 'utf8' }).filter((name) => /^[\x20-\x7e]*$/.test(name)).map((name) => path.join(scratch.mountpoint, name)).filter((file) => lstatSync(file).isFile() && lstatSync(file).size > 0)
// another process reads: the server that is asked is in this one. Errors are the point.
const readSome = async (scratch: Scratch): Promise<void> => void await Promise.allSettled(files(scratch).slice(0, 8).map((file) => run('cat', [file], { maxBuffer: 2 ** 30 })))

describe('secrets', () => {
  it('of a registry, its tokens, mirrors, proxy and redirects are nowhere but where they belong', async () => {
    using scratch = new Scratch()
    let tokens = 0
    await using server = await failing((request, response, count) => {
      if (request.url?.startsWith('/token')) {
        if (count % 2 === 0) response.writeHead(503).end(echo(request))
        else response.writeHead(200).end(JSON.stringify({ token: `${MARK}-token-${tokens++}`, refresh_token: `${MARK}-refresh`, expires_in: 1 }))
        return true
      }
      if (request.url?.startsWith('/elsewhere')) { if (count % 3 > 0) return false; response.writeHead(403).end(echo(request)); return true }
      if (request.headers.authorization === undefined) { response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="s"` }).end(echo(request)); return true }
      const status = [307, 403, 500, 429, 307][count % 5]!
      response.writeHead(status, status === 307 ? { location: `http://user:${MARK}-user@${request.headers.host}/elsewhere?X-Signature=${MARK}-signature` } : {}).end(echo(request))
      return true
    })
    await using mirror = await failing((request, response) => { response.writeHead(502).end(echo(request)); return true })
    const args = configured(scratch, { type: 'registry', registry: {
      scheme: 'http', host: server.host, repo: 'a/b', auth: basic('first'), timeout: 2,
      proxy: { url: `http://me:${MARK}-proxy@127.0.0.1:1`, ping_url: `http://me:${MARK}-ping@127.0.0.1:1/?t=${MARK}-ping`, check_interval: 1 },
      mirrors: [{ host: `http://${mirror.host}`, headers: { 'x-key': `${MARK}-header` } }],
    } })
    const daemon = await startNydusd(scratch, args, { env: { RUST_BACKTRACE: '1' } })
    const leaks: string[] = []
    {
      await using _ended = daemon
      await readSome(scratch)
      leaks.push(...await leaksOf(daemon))
      for (const body of [`{"registry_auth":"${basic('second')}"}`, `{"registry_auth":"${MARK}-no-base64"}`, `{"proxy_url":"${MARK}"}`, `{"registry_auth":["${MARK}"]}`, `{"${'x'.repeat(90)}${MARK}":"${MARK}"}`]) {
        leaks.push(...leaksIn('PUT /api/v1/config', JSON.stringify(await daemon.ask('PUT', '/api/v1/config?id=/', body))))
      }
      await readSome(scratch)
      leaks.push(...await leaksOf(daemon))
    }
    expect(server.requests).toBeGreaterThan(5)
    expect(mirror.requests).toBeGreaterThan(0)
    expect(readFileSync(path.join(scratch.path, 'log/nydusd.log'), 'utf8')).toMatch(/status 502.*\*\*\*.*"mirror":/)
    expect([...leaks, ...leaksIn('stderr', (await daemon.ended).stderr), ...leaksBelow(scratch.path, ['config.json'])]).toEqual([])
  })

  it('of object stores are nowhere', async () => {
    using scratch = new Scratch()
    await using server = await failing((request, response, count) => {
      if (count % 2 === 0) return false
      response.writeHead(403).end(`<Error><Code>SignatureDoesNotMatch</Code><StringToSign>${MARK}</StringToSign><AWSAccessKeyId>${MARK}-id</AWSAccessKeyId>${JSON.stringify(request.headers)}</Error>`)
      return true
    })
    const keys = { scheme: 'http', endpoint: server.host, bucket_name: 'b', access_key_id: `${MARK}-id`, access_key_secret: `${MARK}-secret` }
    for (const [type, more] of [['s3', { region: 'r' }], ['oss', {}]] as const) {
      const daemon = await startNydusd(scratch, configured(scratch, { type, [type]: { ...keys, ...more } }))
      const leaks: string[] = []
      {
        await using _ended = daemon
        await readSome(scratch)
        leaks.push(...await leaksOf(daemon))
      }
      expect([...leaks, ...leaksIn('stderr', (await daemon.ended).stderr), ...leaksBelow(scratch.path, ['config.json'])]).toEqual([])
    }
  })

  it('are in no state that a supervisor or a holder keeps, nor in the environment of the holder\'s server: what is searched would show them', async () => {
    using scratch = new Scratch()
    await using server = await failing(() => false)
    const run = path.join(scratch.path, 'run')
    const config = JSON.stringify({
      version: 2, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
      backend: { type: 'registry', registry: { scheme: 'http', host: server.host, repo: 'a/b', auth: basic('first'), registry_token: `${MARK}-token`, mirrors: [{ host: `http://me:${MARK}@127.0.0.1:1`, headers: { 'x-key': `${MARK}-header` } }] } },
    })
    const mounted = async (daemon: RunningDaemon): Promise<void> => {
      expect((await daemon.ask('POST', '/api/v1/mount?mountpoint=/app', JSON.stringify({ fs_type: 'rafs', source: BOOT, config }))).status).toBe(204)
      expect((await daemon.ask('PUT', '/api/v1/config?id=/app', `{"registry_auth":"${basic('second')}","proxy_url":"http://me:${MARK}@127.0.0.1:1"}`)).status).toBe(204)
    }
    {
      await using supervised = await Supervised.start(scratch, ['--run-dir', run])
      await mounted(supervised.daemon)
      await supervised.save()
      await supervised.supervisor.tell(`write ${path.join(scratch.path, 'state')}`)
    }
    expect(readFileSync(path.join(scratch.path, 'state'), 'utf8')).toContain(BOOT)
    expect(leaksBelow(scratch.path, [])).toEqual([])
    writeFileSync(path.join(scratch.path, 'plain'), config)
    expect(leaksBelow(scratch.path, []).length).toBeGreaterThan(0)
    rmSync(path.join(scratch.path, 'plain'))

    await using held = await startNydusd(scratch, ['--self-heal', '--run-dir', run], { env: { IMAGE_PULL_AUTH: basic('environment') } })
    await mounted(held)
    const kept = readdirSync(`/proc/${held.pid}/fd`).map((fd) => `/proc/${held.pid}/fd/${fd}`).filter((file) => readlinkSync(file).includes('nydusd-state'))
    expect(kept.length).toBe(1)
    const state = readFileSync(kept[0]!, 'utf8')
    expect(state).toContain(BOOT)
    const child = readFileSync(`/proc/${held.pid}/task/${held.pid}/children`, 'latin1').trim()
    const environment = readFileSync(`/proc/${child}/environ`, 'latin1')
    expect(environment).toContain('PATH=')
    expect([...leaksIn('state', state), ...leaksIn('environment', environment), ...leaksIn('arguments', readFileSync(`/proc/${child}/cmdline`, 'latin1')), ...leaksBelow(scratch.path, [])]).toEqual([])
  })

  it('are not inherited by the programs that a daemon starts, and those of helpers stay in it', async () => {
    using scratch = new Scratch()
    const bin = path.join(scratch.path, 'bin')
    mkdirSync(bin)
    const program = (name: string, more: string): void => {
      writeFileSync(path.join(bin, name), `#!/bin/sh\n{ env; echo "$@"; } > ${scratch.path}/seen-$$-${name}\n${more}\n`)
      chmodSync(path.join(bin, name), 0o755)
    }
    program('docker-credential-planted', `cat > /dev/null; echo '{"Username":"me","Secret":"${MARK}-helper"}'`)
    program('prlimit', 'exit 1')
    writeFileSync(path.join(scratch.path, 'config-docker.json'), '')
    mkdirSync(path.join(scratch.path, 'docker'))
    writeFileSync(path.join(scratch.path, 'docker/config.json'), JSON.stringify({ credsStore: 'planted' }))
    await using server = await failing((request, response) => {
      if (request.headers.authorization === `Basic ${basic('helper')}`) return false
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(echo(request))
      return true
    })
    const args = configured(scratch, { type: 'registry', registry: { scheme: 'http', host: server.host, repo: 'a/b' } })
    const env = { PATH: `${bin}:${process.env['PATH']}`, DOCKER_CONFIG: path.join(scratch.path, 'docker'), HOME: scratch.path }
    const own = ['config.json', 'bin/docker-credential-planted']
    for (const auth of [undefined, basic('environment')]) {
      const daemon = await startNydusd(scratch, [...args, '--rlimit-nofile', '900000000'], { env: { ...env, ...(auth !== undefined && { IMAGE_PULL_AUTH: auth }) } })
      const leaks: string[] = []
      {
        await using _ended = daemon
        if (auth !== undefined) await daemon.ask('PUT', '/api/v1/config?id=/', '{"registry_auth":""}') // the helper is asked although the environment has a password
        for (const file of files(scratch).slice(0, 3)) await run('cat', [file], { maxBuffer: 2 ** 30 })
        leaks.push(...await leaksOf(daemon))
      }
      expect([...leaks, ...leaksIn('stderr', (await daemon.ended).stderr), ...leaksBelow(scratch.path, own)]).toEqual([])
    }
    const seen = readdirSync(scratch.path).filter((name) => name.startsWith('seen-'))
    expect(seen.some((name) => name.endsWith('docker-credential-planted'))).toBe(true)
    expect(seen.some((name) => name.endsWith('prlimit'))).toBe(true)
  })
})

// Credentials that are swapped while an image is served: the old ones die, nobody notices, and whoever continues the mount has the new ones.

import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { faultImage, type FaultImage } from '../support/fault-case.ts'
import { type FaultServer, startFaultServer } from '../support/fault-server.ts'
import { eventually, pause, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { Supervised } from '../support/storm.ts'

const run = promisify(execFile)
const basic = (password: string): string => Buffer.from(`me:${password}`).toString('base64')

/** The token service of `server`: tokens are good for as long as the password that earned them. */
function tokenService(server: FaultServer): { readonly alive: Set<string>; readonly asked: string[] } {
  const state = { alive: new Set<string>(), asked: [] as string[] }
  const earnedBy = new Map<string, string>()
  server.gate = (request, response) => {
    const [scheme, given = ''] = (request.headers.authorization ?? '').split(' ')
    if (request.url?.startsWith('/token')) {
      state.asked.push(given)
      if (!state.alive.has(given)) { response.writeHead(401).end(); return true }
      const token = `t${earnedBy.size}`
      earnedBy.set(token, given)
      response.writeHead(200).end(JSON.stringify({ token, expires_in: 300 }))
      return true
    }
    if (scheme === 'Bearer' && state.alive.has(earnedBy.get(given) ?? '')) return false
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${server.host}/token",service="x",scope="repository:a/b:pull"` }).end()
    return true
  }
  return state
}

/** Reads in another process: this one is the registry. */
async function sha256(file: string): Promise<string> {
  return (await run('sha256sum', [file])).stdout.split(' ')[0]!
}

function mountBody(scratch: Scratch, image: FaultImage, host: string): string {
  const source = path.join(scratch.path, 'boot')
  writeFileSync(source, image.bootstrap)
  const config = JSON.stringify({
    version: 2, backend: { type: 'registry', registry: { scheme: 'http', host, repo: 'a/b', auth: basic('first') } }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } }, rafs: { batch_size: 0 },
  })
  return JSON.stringify({ fs_type: 'rafs', source, config })
}

const swap = async (daemon: RunningDaemon, password: string) => await daemon.ask('PUT', '/api/v1/config?id=/app', JSON.stringify({ registry_auth: basic(password) }))

describe('PUT /api/v1/config', () => {
  it.each(['self-healing', 'supervised'] as const)('swaps the credentials of a %s daemon before the old ones die or while readers are refused, and whoever continues it keeps them', async (kind) => {
    using scratch = new Scratch()
    const image = await faultImage()
    await using server = await startFaultServer(image)
    const service = tokenService(server)
    const files = Object.entries(image.digests.demand)
    const right = async (i: number): Promise<void> => expect(await sha256(path.join(scratch.mountpoint, 'app', files[i]![0])), files[i]![0]).toBe(files[i]![1])

    await using supervised = kind === 'supervised' ? await Supervised.start(scratch, []) : undefined
    await using held = kind === 'supervised' ? undefined : await startNydusd(scratch, ['--self-heal'])
    const daemon = (): RunningDaemon => supervised?.daemon ?? held!
    service.alive.add(basic('first'))
    expect((await daemon().ask('POST', '/api/v1/mount?mountpoint=/app', mountBody(scratch, image, server.host))).status).toBe(204)
    await right(0)
    expect(service.asked).toEqual([basic('first')])

    service.alive.add(basic('second')) // known before the first one dies
    expect(await swap(daemon(), 'second')).toMatchObject({ status: 204 })
    service.alive.delete(basic('first'))
    await right(3)
    expect(service.asked).toEqual([basic('first'), basic('second')])

    service.alive.clear() // dies first: a reader is refused, and waits
    const before = server.requests.demand
    const waiting = right(6)
    await eventually(() => service.asked.length > 2, 'a reader is refused')
    service.alive.add(basic('third'))
    expect(await swap(daemon(), 'third')).toMatchObject({ status: 204 })
    await waiting
    expect(server.requests.demand).toBeGreaterThan(before)
    expect(JSON.stringify((await daemon().ask('GET', '/api/v1/config?id=/app')).body)).not.toContain(basic('third'))

    service.asked.length = 0
    if (supervised) {
      await supervised.save()
      await supervised.failover()
    } else {
      const pid = Number((await run('pgrep', ['-P', String(daemon().pid)])).stdout)
      process.kill(pid, 'SIGKILL')
      await pause(10)
    }
    await right(9)
    expect(service.asked).toEqual([basic('third')]) // what the configuration file says is long dead
  })

  it('refuses what is no credential, and the old ones stay', async () => {
    using scratch = new Scratch()
    const image = await faultImage()
    await using server = await startFaultServer(image)
    const service = tokenService(server)
    service.alive.add(basic('first'))
    await using daemon = await startNydusd(scratch, [])
    await daemon.ask('POST', '/api/v1/mount?mountpoint=/app', mountBody(scratch, image, server.host))
    expect((await daemon.ask('PUT', '/api/v1/config?id=/app', '{"registry_auth":"no base64!"}')).status).toBe(400)
    expect((await daemon.ask('PUT', '/api/v1/config?id=/none', '{"registry_auth":""}')).status).toBe(404)
    const [name, digest] = Object.entries(image.digests.demand)[0]!
    expect(await sha256(path.join(scratch.mountpoint, 'app', name))).toBe(digest)
  })
})

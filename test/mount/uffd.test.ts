// nydusd uffd with a monitor of our own in another process: a disk in its memory, page by page.

import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { native } from '../../src/native/load.ts'
import { VECTORS } from '../support/expect.ts'
import { pause, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'

const BUILDER = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const BOOT = path.join(VECTORS, 'v6-rich-zstd/image.boot')
const BLOBS = path.join(VECTORS, 'blobs')

describe.runIf(requires.root && requires.program('cc'))('nydusd uffd', () => {
  let tools: Scratch
  let client: string
  let disk: Buffer
  beforeAll(() => {
    tools = new Scratch()
    client = path.join(tools.path, 'client')
    execFileSync('cc', ['-O1', '-Wall', '-Werror', '-pthread', '-o', client, path.resolve(import.meta.dirname, '../support/uffd-client.c')])
    const image = path.join(tools.path, 'disk')
    execFileSync(BUILDER, ['export', '--block', '-B', BOOT, '-D', BLOBS, '-O', image])
    disk = readFileSync(image)
    return () => tools[Symbol.dispose]()
  })

  const sock = (scratch: Scratch): string => path.join(scratch.path, 'uffd.sock')
  async function start(scratch: Scratch, blobs = BLOBS): Promise<RunningDaemon> {
    return await startNydusd(scratch, ['--bootstrap', BOOT, '--config', scratch.config(blobs)], { where: ['uffd', '--sock', sock(scratch)] })
  }

  async function read(scratch: Scratch, policy: string, page = 4096): Promise<{ status: number | null; signal: NodeJS.Signals | null; bytes: Buffer; lent: number }> {
    const child = spawn(client, [sock(scratch), policy, `${page}`], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, killSignal: 'SIGKILL' })
    const parts: Buffer[] = []
    let text = ''
    child.stdout.on('data', (part: Buffer) => parts.push(part))
    child.stderr.setEncoding('utf8').on('data', (part: string) => { text += part })
    const [status, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => child.once('close', (code, killed) => resolve([code, killed])))
    return { status, signal, bytes: Buffer.concat(parts), lent: Number(/lent (\d+)/.exec(text)?.[1] ?? 0) }
  }

  const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

  it.each([['copy', 4096], ['copy', 65_536], ['zerocopy', 4096], ['zerocopy', 2 ** 20]])('shows the exported disk, %s by %d bytes, to one monitor after the other', async (policy, page) => {
    using scratch = new Scratch()
    await using daemon = await start(scratch)
    for (const round of [1, 2]) {
      const { status, bytes, lent } = await read(scratch, policy, page)
      expect([round, status, sha256(bytes)]).toEqual([round, 0, sha256(disk)])
      expect(lent > 0).toBe(policy === 'zerocopy')
    }
    expect((await daemon.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state: 'RUNNING' })
  })

  it('lends what is in the cache already before it is asked for', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    await read(scratch, 'copy')
    const { status, bytes, lent } = await read(scratch, 'prefault')
    expect([status, sha256(bytes)]).toEqual([0, sha256(disk)])
    expect(lent).toBeGreaterThan(disk.length / 2)
  })

  it('raises SIGBUS for a page that cannot be verified, never zeros', async () => {
    using scratch = new Scratch()
    const blobs = path.join(scratch.path, 'blobs')
    mkdirSync(blobs)
    for (const name of readdirSync(BLOBS)) {
      cpSync(path.join(BLOBS, name), path.join(blobs, name))
      const bytes = readFileSync(path.join(blobs, name))
      for (let at = 0; at < statSync(path.join(blobs, name)).size / 2; at += 512) bytes[at]! ^= 0xff
      writeFileSync(path.join(blobs, name), bytes)
    }
    await using daemon = await start(scratch, blobs)
    expect(await read(scratch, 'copy')).toMatchObject({ signal: 'SIGBUS' })
    expect((await daemon.ask('GET', '/api/v1/daemon')).status).toBe(200)
  })

  it('lets a monitor go that sends what is no message, and serves the next', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    for (const text of ['nonsense]', '{"type":9}', '{"type":0,"regions":[{"size":-1}]}', '{"type":0,"regions":[]}', '['.repeat(70_000), `{"type":0,"regions":[{"base_host_virt_addr":1,"size":4096,"offset":0,"page_size":4096}]}`]) {
      const fd = native().unixConnect(Buffer.from(sock(scratch)), false)
      native().sendFds(fd, Buffer.from(text), new Int32Array())
      const answer = Buffer.alloc(10)
      let size = -1
      for (let i = 0; i < 500 && size < 0; i++) {
        await pause(10)
        size = native().receiveFds(fd, answer, new Int32Array(1))
        if (text.startsWith('[')) native().sendFds(fd, Buffer.from(text), new Int32Array()) // more of the same, until it is too much
        if (size === -104) size = 0
      }
      expect([text.slice(0, 40), size]).toEqual([text.slice(0, 40), 0])
      native().closeFd(fd)
    }
    expect((await read(scratch, 'copy', 65_536)).status).toBe(0)
  })
})

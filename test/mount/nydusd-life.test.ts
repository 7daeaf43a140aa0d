// How a daemon begins and ends: order of the start, signals, umounts from outside, deaths and what the next one finds.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../support/expect.ts'
import { largeBootstrap } from '../support/large-image.ts'
import { imageOfBytes } from '../support/one-file-image.ts'
import { eventually, pause, type RunningDaemon, runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'

const BOOT = path.join(VECTORS, 'v6-small-zstd/image.boot')
const image = (scratch: Scratch): string[] => ['--bootstrap', BOOT, '--config', scratch.config()]

describe('nydusd', () => {
  it('answers RUNNING with everything mounted as soon as its socket exists', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    const { body } = await daemon.ask('GET', '/api/v1/daemon')
    expect(body).toMatchObject({ state: 'RUNNING', backend_collection: { '/': { backend_type: 'Rafs', mountpoint: '/', config: { version: 2, backend: { type: 'localfs' } } } } })
    expect(readdirSync(scratch.mountpoint).length).toBeGreaterThan(0)
    expect(readFileSync('/proc/self/mountinfo', 'latin1')).toMatch(new RegExp(` ${scratch.mountpoint} ro,nosuid,nodev,noatime.* - fuse rafs `))
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('unmounts, removes its socket and ends with 0 on %s', async (signal) => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    daemon.child.kill(signal)
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect([scratch.isMounted(), existsSync(scratch.socket)]).toEqual([false, false])
  })

  it('detaches a mount that is in use', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    const user = spawn('sleep', ['60'], { cwd: scratch.mountpoint })
    try {
      daemon.child.kill('SIGTERM')
      expect(await daemon.ended).toMatchObject({ status: 0 })
      expect(scratch.isMounted()).toBe(false)
    } finally {
      user.kill('SIGKILL')
    }
  })

  it.each([[[]], [['-l']]])('ends by itself when somebody else unmounts it (umount %j)', async (options) => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    execFileSync('umount', [...options, scratch.mountpoint])
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect(existsSync(scratch.socket)).toBe(false)
  })

  it('leaves the mount alone on exit by API: it is dead, for whoever holds its descriptor to revive', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    expect((await daemon.ask('PUT', '/api/v1/daemon/exit')).status).toBe(204)
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect(scratch.isMounted()).toBe(true)
    expect(() => execFileSync('stat', ['-f', scratch.mountpoint], { stdio: 'pipe' })).toThrow(/not connected/)
  })

  it('starts anew on a mountpoint that a killed daemon left dead, with its stale socket', async () => {
    using scratch = new Scratch()
    for (let i = 0; i < 3; i++) {
      await using daemon = await startNydusd(scratch, image(scratch))
      expect(readdirSync(scratch.mountpoint).length).toBeGreaterThan(0)
      if (i === 2) break
      daemon.child.kill('SIGKILL')
      await daemon.ended
      expect([scratch.isMounted(), existsSync(scratch.socket)]).toEqual([true, true])
      rmSync(scratch.socket) // so that startNydusd waits for the next one
    }
    expect(scratch.isMounted()).toBe(false)
  })

  it('waits in INIT for a takeover after a crash only when a supervisor holds the connection', async () => {
    using scratch = new Scratch()
    {
      await using daemon = await startNydusd(scratch, image(scratch))
      daemon.child.kill('SIGKILL')
      await daemon.ended
    }
    const supervised = spawn(path.resolve(import.meta.dirname, '../../bin/nydusd'), [
      '--mountpoint', scratch.mountpoint, '--apisock', scratch.socket, '--id', 'd', '--supervisor', path.join(scratch.path, 'supervisor.sock'), ...image(scratch)], { stdio: 'ignore' })
    try {
      const state = (): string => {
        try {
          return execFileSync('curl', ['-s', '--unix-socket', scratch.socket, 'http://localhost/api/v1/daemon'], { encoding: 'utf8', stdio: 'pipe' })
        } catch {
          return ''
        }
      }
      await eventually(() => state().includes('"state":"INIT"'), 'the API answers INIT')
      expect(JSON.parse(state())).toMatchObject({ id: 'd', state: 'INIT', backend_collection: {} })
      const ended = new Promise((resolve) => supervised.once('exit', resolve))
      supervised.kill('SIGTERM')
      expect(await ended).toBe(0)
      expect(scratch.isMounted()).toBe(true)
    } finally {
      supervised.kill('SIGKILL')
    }
  })

  it('keeps a connection that never says a byte', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    const watcher = connect(scratch.socket)
    let ends = 0
    watcher.on('end', () => { ends++ }).on('error', () => { ends++ })
    await pause(1000)
    expect(ends).toBe(0)
    daemon.child.kill('SIGTERM')
    await daemon.ended
    await eventually(() => ends > 0, 'the watcher hears of the death')
    watcher.destroy()
  })

  it('mounts an empty directory without an image, and does not read the configuration then', async () => {
    using scratch = new Scratch()
    const config = path.join(scratch.path, 'broken.json')
    writeFileSync(config, 'not { json')
    await using daemon = await startNydusd(scratch, ['--config', config])
    expect(readdirSync(scratch.mountpoint)).toEqual([])
    expect((await daemon.ask('GET', '/api/v1/metrics')).status).toBe(404)
  })

  it('serves with --localfs-dir alone', async () => {
    using scratch = new Scratch()
    mkdirSync(scratch.cache)
    execFileSync('cp', ['-r', `${path.join(VECTORS, 'blobs')}/.`, scratch.cache])
    await using _daemon = await startNydusd(scratch, ['--bootstrap', BOOT, '--localfs-dir', scratch.cache])
    expect(readdirSync(scratch.mountpoint).length).toBeGreaterThan(0)
  })

  it('fetches ahead what a list names, after the mount, and nothing without being told to', async () => {
    using scratch = new Scratch()
    const list = path.join(scratch.path, 'list')
    writeFileSync(list, ' /a-first \n/nonexistent\n')
    // SAFETY: the shape that the API documents.
    const fetched = async (daemon: RunningDaemon): Promise<number> => ((await daemon.ask('GET', '/api/v1/metrics/blobcache')).body as { prefetch_data_amount: number }).prefetch_data_amount
    for (const enable of [false, true]) {
      const config = scratch.config(undefined, { fs_prefetch: { enable, prefetch_all: false } })
      await using daemon = await startNydusd(scratch, ['--bootstrap', path.join(VECTORS, 'v6-rich-chunk64k/image.boot'), '--config', config, '--prefetch-files', list])
      if (enable) await eventually(async () => await fetched(daemon) === 9000, 'the 9000 bytes of /a-first are fetched')
      else expect(await fetched(daemon)).toBe(0)
    }
  })

  it('makes the directory of its log file and writes JSON lines there', async () => {
    using scratch = new Scratch()
    await using _daemon = await startNydusd(scratch, [...image(scratch), '--log-file', path.join(scratch.path, 'logs/id/nydusd')])
    const lines = readFileSync(path.join(scratch.path, 'logs/id/nydusd.log'), 'utf8').trim().split('\n').map((line): unknown => JSON.parse(line))
    expect(lines).toContainEqual(expect.objectContaining({ level: 'info', message: 'serve:daemon:state', to: 'RUNNING' }))
  })

  it.each([
    ['a bootstrap that does not exist', ['--bootstrap', '/nonexistent', '--localfs-dir', '/tmp'], /nonexistent/],
    ['a bootstrap that is none', ['--bootstrap', '/proc/version', '--localfs-dir', '/tmp'], /FORMAT_/],
    ['a backend without its bucket', ['--bootstrap', BOOT, '--config', '@s3'], /backend\.s3\.bucket_name is missing/],
    ['an image without a configuration', ['--bootstrap', BOOT], /--config/],
    ['a service of later versions', ['nbd', '--sock', 's'], /'nbd' is not in this version/],
  ])('refuses %s with exit 1 and the reason, mounting nothing', async (_what, args, reason) => {
    using scratch = new Scratch()
    const s3 = path.join(scratch.path, 's3.json')
    writeFileSync(s3, JSON.stringify({ version: 2, backend: { type: 's3', s3: {} }, cache: {} }))
    const end = await runNydusd([...(args[0] === 'nbd' ? [] : ['--mountpoint', scratch.mountpoint]), ...args.map((arg) => arg === '@s3' ? s3 : arg)])
    expect(end).toMatchObject({ status: 1, stderr: expect.stringMatching(reason) })
    expect(scratch.isMounted()).toBe(false)
  })

  it('refuses a mountpoint that is none', async () => {
    using scratch = new Scratch()
    for (const mountpoint of ['/nonexistent/x', BOOT]) {
      expect(await runNydusd(['--mountpoint', mountpoint, ...image(scratch)])).toMatchObject({ status: 1, stderr: expect.stringMatching(/SERVE_MOUNT/) })
    }
  })

  it('answers usage errors with exit 2, help and version with exit 0', async () => {
    expect(await runNydusd(['--nonsense'])).toMatchObject({ status: 2, stderr: expect.stringMatching(/unexpected argument '--nonsense'[\s\S]*Usage:/) })
    expect(await runNydusd(['--help'])).toMatchObject({ status: 0, stdout: expect.stringMatching(/Examples:/) })
    expect(await runNydusd(['-V'])).toMatchObject({ status: 0, stdout: expect.stringMatching(/Version:\s*v[\s\S]*Git Commit:/) })
  })

  // The worker faults in a page of a bootstrap that lies on a file system which does not answer: nothing can wake it.
  it('ends on SIGTERM though a worker hangs in a page fault, and leaves no mount', async () => {
    const stage = mkdtempSync(path.join(tmpdir(), 'nydus-stuck-'))
    using inner = new Scratch()
    using outer = new Scratch()
    try {
      const { boot, blob, blobId } = imageOfBytes(Buffer.from(largeBootstrap([60_000])))
      mkdirSync(path.join(stage, 'blobs'))
      writeFileSync(path.join(stage, 'boot'), boot)
      writeFileSync(path.join(stage, 'blobs', blobId), blob)
      await using below = await startNydusd(inner, ['--bootstrap', path.join(stage, 'boot'), '--config', inner.config(path.join(stage, 'blobs'))])
      await using daemon = await startNydusd(outer, ['--bootstrap', path.join(inner.mountpoint, 'file'), '--config', outer.config(), '--fuse-threads', '1'])
      const file = openSync(path.join(inner.mountpoint, 'file'), 'r')
      execFileSync('python3', ['-c', `import os; os.posix_fadvise(${file}, 0, 0, os.POSIX_FADV_DONTNEED)`], { stdio: ['ignore', 'pipe', 'pipe', ...Array<'ignore'>(Math.max(0, file - 3)).fill('ignore'), file] })
      closeSync(file)
      execFileSync('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
      below.child.kill('SIGSTOP')
      try {
        const walker = spawn('ls', ['-l', path.join(outer.mountpoint, 'directory-0')], { stdio: 'ignore' })
        await pause(1000)
        expect(walker.exitCode).toBeNull()
        daemon.child.kill('SIGTERM')
        const end = await Promise.race([daemon.ended, pause(15_000).then(() => undefined)])
        expect(end).toBeDefined()
        expect(outer.isMounted()).toBe(false)
        walker.kill('SIGKILL')
      } finally {
        below.child.kill('SIGCONT')
      }
    } finally {
      rmSync(stage, { recursive: true, force: true })
    }
  })
})

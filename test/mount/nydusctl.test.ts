// bin/nydusctl against a running daemon: what it prints, what it changes, how it fails.

import { execFile, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { Scratch, startNydusd } from '../support/nydusd.ts'

const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusctl')
const CASE = 'v6-small-zstd'
const BOOT = path.join(VECTORS, CASE, 'image.boot')

function nydusctl(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => execFile(process.execPath, [PROGRAM, ...args], (error, stdout, stderr) => resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr })))
}

describe('nydusctl', () => {
  it('mounts, shows, measures and unmounts', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    const ctl = (...args: string[]): ReturnType<typeof nydusctl> => nydusctl('--sock', scratch.socket, ...args)
    const mountArguments = ['mount', '-s', BOOT, '-c', scratch.config(), '-m', '/one', '-t', 'rafs']
    expect(await ctl(...mountArguments)).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await ctl(...mountArguments)).toMatchObject({ status: 0 })
    const info = await ctl('info')
    expect(info.stdout).toMatch(/^State: +RUNNING$/m)
    expect(info.stdout).toMatch(/^\/one +Rafs +localfs .*blobs +blobcache +\S+cache +\d{4}-\d\d-\d\d /m)
    // SAFETY: raw is the API's JSON.
    const raw = JSON.parse((await nydusctl('info', '-r', '-S', scratch.socket)).stdout) as { backend_collection: object }
    expect(Object.keys(raw.backend_collection)).toEqual(['/one'])

    const files = expectOfCase(CASE)!.filter(({ type }) => type === 'reg').map((entry) => path.join(scratch.mountpoint, 'one', entry.path))
    const live = ctl('top', '--interval', '0.5', '--count', '3')
    const rates = ctl('metrics', 'fsstats', '--interval', '0.5', '--count', '2')
    await new Promise((resolve) => setTimeout(resolve, 300))
    for (let i = 0; i < 20; i++) {
      for (const file of files) readFileSync(file)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect((await live).stdout).toMatch(/MOUNTPOINT +OPS\/s +READS\/s[\s\S]*^\/one /m)
    expect((await rates).stdout).toMatch(/Read Bandwidth: /)
    const fsstats = (await ctl('metrics', 'fsstats')).stdout
    expect(fsstats).toMatch(/^Instance: +\/one$/m)
    expect(fsstats).toMatch(/^read +\d+ +0 +\d/m)
    expect((await ctl('metrics', 'fsstats', '--id', '/one')).stdout).toBe(fsstats)
    expect((await ctl('metrics', 'cache')).stdout).toMatch(/Directory: +\S+cache\n[\s\S]*Files: .*\.blob\.data/)
    expect((await ctl('metrics', 'backend')).stdout).toMatch(/Backend Type: +localfs\nRead Amount: +[1-9]\d* Bytes/)
    expect(JSON.parse((await ctl('metrics', 'backend', '--raw')).stdout)).toMatchObject({ backend_type: 'localfs' })

    const config = path.join(scratch.path, 'other.json')
    writeFileSync(config, readFileSync(scratch.config()))
    expect(await ctl('mount', '--remount', '-s', path.join(VECTORS, 'v6-rich-chunk64k/image.boot'), '-c', config, '-m', '/one', '-t', 'rafs')).toMatchObject({ status: 0 })
    expect(await ctl('set', 'log-level', 'debug')).toMatchObject({ status: 0, stdout: '' })
    expect(await ctl('umount', '-m', '/one')).toMatchObject({ status: 0, stdout: '' })
    expect(readdirSync(scratch.mountpoint)).toEqual([])
    expect(daemon.child.exitCode).toBe(null)
  })

  it('says what is wrong: usage with 2, a refusal or a missing daemon with 1', async () => {
    using scratch = new Scratch()
    await using _daemon = await startNydusd(scratch, [])
    const ctl = (...args: string[]): ReturnType<typeof nydusctl> => nydusctl('-S', scratch.socket, ...args)
    const cases: [string[], number, RegExp][] = [
      [['umount', '-m', '/one'], 1, /the daemon refuses \(500\): nothing is mounted on \/one/],
      [['metrics', 'fsstats'], 1, /refuses \(404\): .*NoCounter/],
      [['mount', '-s', BOOT, '-c', '/nonexistent', '-m', '/one', '-t', 'rafs'], 1, /cannot read \/nonexistent/],
      [['mount', '-s', BOOT, '-m', '/one'], 2, /--config <config>\n {2}--type <type>/],
      [['mount', '-s', BOOT, '-c', scratch.config(), '-m', '/one', '-t', 'passthrough_fs'], 1, /refuses \(400\): cannot share/],
      [['metrics', 'nothing'], 2, /possible values: backend, cache, fsstats/],
      [['set', 'log-level', 'loud'], 2, /possible values: trace/],
      [['info', '--interval', 'x'], 2, /invalid value 'x'/],
    ]
    for (const [args, status, text] of cases) {
      const result = await ctl(...args)
      expect(result.status, args.join(' ')).toBe(status)
      expect(result.stderr).toMatch(text)
    }
    expect(await nydusctl('info')).toMatchObject({ status: 2, stderr: expect.stringContaining('--sock <sock>') })
    expect(await nydusctl('-S', '/nonexistent.sock', 'info')).toMatchObject({ status: 1, stderr: expect.stringContaining('no daemon answers') })
  })

  it('ends quietly when nobody reads what it prints', () => {
    const { stdout, stderr } = spawnSync('bash', ['-c', `'${process.execPath}' '${PROGRAM}' --help | true; echo "${'$'}{PIPESTATUS[0]}"`], { encoding: 'utf8' })
    expect([stdout, stderr]).toEqual(['141\n', ''])
  })
})

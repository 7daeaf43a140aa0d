// What a daemon knows of single files: upstream's per-file metrics, and a trace that the next start fetches ahead.

import { execFileSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { eventually, Scratch, startNydusd } from '../support/nydusd.ts'

const NAME = 'v6-rich-chunk64k'
const files = expectOfCase(NAME)!.filter(({ type, size }) => type === 'reg' && size! > 0).map(({ path: file }) => file)
const start = (scratch: Scratch, change: object, ...more: string[]) =>
  startNydusd(scratch, ['--bootstrap', path.join(VECTORS, NAME, 'image.boot'), '--config', scratch.config(undefined, { fs_prefetch: { enable: false }, ...change }), ...more])
const ctl = (scratch: Scratch, ...args: string[]) => execFileSync(path.resolve(import.meta.dirname, '../../bin/nydusctl'), ['--sock', scratch.socket, ...args], { encoding: 'utf8' })
const read = (scratch: Scratch, file: string) => readFileSync(path.join(scratch.mountpoint, file))

describe('a daemon that watches its files', () => {
  it('says which were read, how often, when first, and which since it was asked last', async () => {
    using scratch = new Scratch()
    await using daemon = await start(scratch, { iostats_files: true, access_pattern: true, latest_read_files: true })
    const [first, second] = [files[0]!, files[1]!]
    const before = Math.floor(Date.now() / 1000)
    read(scratch, first)
    read(scratch, second)
    const { ino, size } = statSync(path.join(scratch.mountpoint, first))
    expect((await daemon.ask('GET', '/api/v1/metrics')).body).toMatchObject({ files_account_enabled: true, access_pattern_enabled: true, record_latest_read_files_enabled: true })
    const stats = (await daemon.ask('GET', '/api/v1/metrics/files?id=%2F')).body as Record<string, { data_read: number; total_fops: number; fop_hits: number[] }>
    expect(stats[ino]).toMatchObject({ data_read: size })
    expect(stats[ino]!.fop_hits[4]).toBeGreaterThan(0)
    const pattern = (await daemon.ask('GET', '/api/v1/metrics/pattern')).body as { ino: number; nr_read: number; first_access_time_secs: number }[]
    expect(pattern.map((row) => row.ino)).toContain(ino)
    expect(pattern.find((row) => row.ino === ino)!.first_access_time_secs).toBeGreaterThanOrEqual(before)
    const latest = (await daemon.ask('GET', '/api/v1/metrics/files?latest=true')).body as number[][]
    expect(latest.some(([from, to = from]) => from! <= ino && ino <= to!)).toBe(true)
    expect((await daemon.ask('GET', '/api/v1/metrics/files?latest=true')).body).toEqual([])
  })

  it('keeps nothing unless it is told to', async () => {
    using scratch = new Scratch()
    await using daemon = await start(scratch, {})
    read(scratch, files[0]!)
    expect((await daemon.ask('GET', '/api/v1/metrics/files')).body).toEqual({})
    expect((await daemon.ask('GET', '/api/v1/metrics/pattern')).body).toEqual([])
    expect((await daemon.ask('GET', '/api/v1/trace')).status).toBe(400)
  })
})

describe('a trace', () => {
  it('lists what was read, in order, whether it was in the cache or not, and is fetched ahead at the next start', async () => {
    using scratch = new Scratch()
    const wanted = [files[4]!, files[1]!, files[6]!]
    const list = path.join(scratch.path, 'trace')
    {
      await using _daemon = await start(scratch, {})
      read(scratch, files[0]!) // before: not part of it
      read(scratch, wanted[1]!) // fills the cache
      execFileSync('sh', ['-c', 'echo 3 > /proc/sys/vm/drop_caches'])
      ctl(scratch, 'trace', 'start')
      for (const file of wanted) read(scratch, file)
      ctl(scratch, 'trace', 'stop', '--output', list)
      expect(() => ctl(scratch, 'trace', 'stop')).toThrow(/no trace/)
    }
    const lines = readFileSync(list, 'utf8').trimEnd().split('\n')
    expect(lines[0]).toMatch(/^# trace of \//)
    const entries = lines.slice(1).map((line) => line.split('\t'))
    expect([...new Set(entries.map(([file]) => file))]).toEqual(wanted)
    for (const file of wanted) {
      const size = entries.filter(([name]) => name === file).reduce((sum, [, , length]) => sum + Number(length), 0)
      expect(size, file).toBe(statOf(file))
    }
    using fresh = new Scratch()
    await using daemon = await start(fresh, { fs_prefetch: { enable: true, prefetch_all: false } }, '--prefetch-files', list)
    const metrics = async () => (await daemon.ask('GET', '/api/v1/metrics/blobcache')).body as { prefetch_data_amount: number; prefetch_workers: number; prefetch_end_time_secs: number }
    await eventually(async () => { const { prefetch_workers, prefetch_end_time_secs } = await metrics(); return prefetch_end_time_secs > 0 && prefetch_workers === 0 }, 'the list is fetched')
    expect((await metrics()).prefetch_data_amount).toBeGreaterThan(0)
    const asked = ((await daemon.ask('GET', '/api/v1/metrics/backend')).body as { read_count: number }).read_count
    for (const file of wanted) read(fresh, file)
    expect((await daemon.ask('GET', '/api/v1/metrics/backend')).body).toMatchObject({ read_count: asked })
  })

  it('gives paths alone for optimize', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch, {})
    ctl(scratch, 'trace', 'start', '--id', '/')
    read(scratch, files[2]!)
    expect(ctl(scratch, 'trace', 'stop', '--paths')).toBe(`${files[2]}\n`)
  })
})

function statOf(file: string): number {
  return expectOfCase(NAME)!.find(({ path: name }) => name === file)!.size!
}

// Equal images give equal conversions, to the manifest: whatever the number of threads and CPUs, the umask, the time zone, the place, and the clock.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { hostPlatform } from '../../src/format/oci/platform.ts'
import { convertImage, type LayerBuilder, WorkDirectory } from '../../src/image/index.ts'
import { convert } from '../../src/index.ts'
import { inProcessBuilder } from '../../src/library/in-process-builder.ts'
import { openSource, openTarget } from '../../src/registry/index.ts'
import { gzipLayer, named, type TestEntry } from '../image/make-image.ts'
import { sampleLayout } from '../image/sample.ts'
import { NYDUSIFY } from '../image/support.ts'

let base: string
let source: string
let digest: string
let runs = 0
const place = () => path.join(base, `run-${runs++}`)

beforeAll(async () => {
  base = mkdtempSync(path.join(tmpdir(), 'nydus-same-image-'))
  source = path.join(base, 'source')
  const { maker } = sampleLayout(source)
  const entry: TestEntry = { path: 'a', data: 'b' }
  maker.name(maker.image([gzipLayer([{ ...entry, mtime: 7 }])]), 'one')
  maker.name(maker.image([gzipLayer([{ ...entry, mtime: 8 }])]), 'other')
  digest = await plainly('sample')
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

async function plainly(name: string): Promise<string> {
  return (await convert({ source: `oci:${source}:${name}`, target: `oci:${place()}:x`, workDirectory: place() })).target.digest
}

async function withThreads(threads: number): Promise<string> {
  const { signal } = new AbortController()
  const inner = inProcessBuilder()
  const builder: LayerBuilder = { ...inner, pack: (tar, options) => inner.pack(tar, { ...options, threads }), merge: (layers, options) => inner.merge(layers, { ...options, threads }) }
  await using from = await openSource(`oci:${source}:sample`, { signal })
  await using target = await openTarget(`oci:${place()}:x`, { signal })
  await using work = await WorkDirectory.open(place())
  const settings = { compressor: 'zstd', chunkSize: 0x10_0000, batchSize: 0x10_0000, alignedChunk: false, prefetchPatterns: '/', chunkDict: undefined } as const
  const result = await convertImage({
    source: from, target, builder, settings, work, platforms: [hostPlatform()], cache: undefined, dictionary: undefined, signal, sourceReference: 'sample', oci: false, mergePlatform: false, referrer: false,
  })
  return result.target.digest
}

describe('a conversion', () => {
  it.each([1, 2, 8])('with %i threads gives the same manifest', async (threads) => {
    expect(await withThreads(threads)).toBe(digest)
  })

  it.each([
    ['on one CPU', '022', ['taskset', '-c', '0'], {}], ['with the umask 077', '077', [], {}], ['in Tokyo', '022', [], { TZ: 'Asia/Tokyo' }], ['with another home', '022', [], { HOME: '/nonexistent' }],
  ] as const)('%s gives the same manifest', (_what, umask, prefix, env) => {
    const target = place()
    execFileSync('sh', ['-c', 'umask "$1"; shift; exec "$@"', 'sh', umask, ...prefix, NYDUSIFY, 'convert', '--source', `oci:${source}:sample`, '--target', `oci:${target}:x`, '--work-dir', place()],
      { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] })
    expect(named(target, 'x').digest).toBe(digest)
  })

  it('at another time gives the same manifest', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2001-02-03T04:05:06Z') })
    try {
      expect(await plainly('sample')).toBe(digest)
    } finally {
      vi.useRealTimers()
    }
  })

  it('of an image with one other time gives another', async () => {
    const [one, again, other] = [await plainly('one'), await plainly('one'), await plainly('other')]
    expect([again === one, other === one]).toEqual([true, false])
  })
})

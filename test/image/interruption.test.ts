// Ends of every kind: by signal, by kill -9 at random moments, two jobs at once. The target's name shows the old image or the complete new one;
// finished layers are used again, after their digest was checked; nothing else stays.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { check, convert } from '../../src/index.ts'
import { gzipLayer, LayoutMaker, named, type TestLayer } from './make-image.ts'
import { nydusify, startNydusify, temporary, until } from './support.ts'

/** Moments at which a job is killed. */
const KILLS = 20

function noise(seed: string, length: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0, digest = createHash('sha512').update(seed).digest(); at < length; at += 64, digest = createHash('sha512').update(digest).digest()) parts.push(digest)
  return Buffer.concat(parts, length)
}

function bigLayers(count: number, seed: string): TestLayer[] {
  return Array.from({ length: count }, (_, at) => gzipLayer(Array.from({ length: 40 }, (_, file) => ({ path: `l${at}/f${file}`, data: noise(`${seed}${at}/${file}`, 100_000) }))))
}

function leftovers(directory: string): string[] {
  if (!fs.existsSync(directory)) return []
  return fs.readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => /\.nydus-tmp|scratch-|merge-|pack-/.test(name))
}

describe('kill -9', () => {
  it(`at ${KILLS} random moments leaves the old image or the complete new one, and the next run clears up`, async () => {
    using work = temporary('kill')
    const maker = new LayoutMaker(work.at('source'))
    maker.name(maker.image(bigLayers(1, 'old')), 'old')
    maker.name(maker.image(bigLayers(4, 'new')), 'new')
    const request = (name: string) => ({ source: `oci:${work.at('source')}:${name}`, target: `oci:${work.at('target')}:t`, workDirectory: work.at('w') })
    const old = await convert(request('old'))
    const started = performance.now()
    const whole = nydusify(['convert', '--source', request('new').source, '--target', `oci:${work.at('measure')}:t`, '--work-dir', work.at('m')])
    expect(whole.code).toBe(0)
    const durationMs = performance.now() - started
    const fresh = named(work.at('measure'), 't').digest
    const seen = new Map<string, number>()
    const index = work.at('target/index.json')
    const oldIndex = fs.readFileSync(index)
    for (let round = 0; round < KILLS; round++) {
      fs.writeFileSync(index, oldIndex)
      if (round % 2 === 0) fs.rmSync(work.at('w'), { recursive: true, force: true }) // from the start, or with what the last one left
      const job = startNydusify(['convert', '--source', request('new').source, '--target', request('new').target, '--work-dir', work.at('w')])
      const timer = setTimeout(() => job.child.kill('SIGKILL'), durationMs * (0.1 + 1.2 * Math.random()))
      await job.ended
      clearTimeout(timer)
      const now = named(work.at('target'), 't').digest
      seen.set(now, (seen.get(now) ?? 0) + 1)
      expect([old.target.digest, fresh]).toContain(now)
    }
    const last = nydusify(['convert', '--source', request('new').source, '--target', request('new').target, '--work-dir', work.at('w')])
    expect(last.code).toBe(0)
    expect(named(work.at('target'), 't').digest).toBe(fresh)
    expect(leftovers(work.at('w'))).toEqual([])
    expect((await check({ source: request('new').source, target: request('new').target, workDirectory: work.at('c') })).findings).toEqual([])
    process.stdout.write(`kill -9: ${[...seen.values()].join(' and ')} of ${KILLS} runs ended with each image\n`)
  })
})

describe('SIGINT and SIGTERM', () => {
  it.each([['SIGINT', 130], ['SIGTERM', 143]] as const)('%s ends the job with %i, the old image and the reason in --output-json', async (name, code) => {
    using work = temporary('signal')
    const maker = new LayoutMaker(work.at('source'))
    maker.name(maker.image(bigLayers(6, 'x')), 'x')
    const json = work.at('out.json')
    const job = startNydusify(['convert', '--source', `oci:${work.at('source')}:x`, '--target', `oci:${work.at('target')}:t`, '--work-dir', work.at('w'), '--output-json', json])
    await until('the first layer', () => job.text().includes('pulled'))
    job.child.kill(name)
    const ended = await job.ended
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code, signal: null })
    expect(JSON.parse(fs.readFileSync(json, 'utf8'))).toMatchObject({ Outcome: 'interrupted', ExitCode: code })
    expect(leftovers(work.path)).toEqual([])
    expect(() => named(work.at('target'), 't')).toThrow()
  })
})

describe('finished layers', () => {
  const broken = (): TestLayer => ({ ...gzipLayer([{ path: 'bad', data: noise('bad', 5_000_000) }]), diffId: `sha256:${'0'.repeat(64)}` })

  async function failOnce(work: ReturnType<typeof temporary>) {
    const maker = new LayoutMaker(work.at('source'))
    const [good] = bigLayers(1, 'keep')
    maker.name(maker.image([good!, broken()]), 'broken')
    maker.name(maker.image([good!]), 'good')
    await expect(convert({ source: `oci:${work.at('source')}:broken`, target: `oci:${work.at('target')}:t`, workDirectory: work.at('w') })).rejects.toMatchObject({ code: 'IMAGE_INVALID' })
    const kept = fs.readdirSync(work.at('w/layers')).filter((name) => !name.endsWith('.json'))
    expect(kept).toHaveLength(1)
    return path.join(work.at('w/layers'), kept[0]!)
  }
  const again = (work: ReturnType<typeof temporary>) => convert({ source: `oci:${work.at('source')}:good`, target: `oci:${work.at('target')}:t`, workDirectory: work.at('w') })

  it('stay after a failure and are used again', async () => {
    using work = temporary('kept')
    await failOnce(work)
    const result = await again(work)
    expect(result.layers.map(({ origin }) => origin)).toEqual(['kept'])
    expect(fs.existsSync(work.at('w'))).toBe(false)
  })

  it('are packed again when their bytes have changed', async () => {
    using work = temporary('damaged')
    const file = await failOnce(work)
    const bytes = fs.readFileSync(file)
    bytes[1000]! ^= 1
    fs.writeFileSync(file, bytes)
    const result = await again(work)
    expect(result.layers.map(({ origin }) => origin)).toEqual(['packed'])
    expect((await check({ source: `oci:${work.at('source')}:good`, target: `oci:${work.at('target')}:t`, workDirectory: work.at('c') })).findings).toEqual([])
  })

  it('are packed again when their record has changed', async () => {
    using work = temporary('record')
    const file = await failOnce(work)
    const record = JSON.parse(fs.readFileSync(`${file}.json`, 'utf8'))
    fs.writeFileSync(`${file}.json`, JSON.stringify({ ...record, size: record.size - 1 }))
    expect((await again(work)).layers.map(({ origin }) => origin)).toEqual(['packed'])
  })

  it('are not used with other options', async () => {
    using work = temporary('options')
    await failOnce(work)
    const result = await convert({ source: `oci:${work.at('source')}:good`, target: `oci:${work.at('target')}:t`, workDirectory: work.at('w'), compressor: 'lz4_block' })
    expect(result.layers.map(({ origin }) => origin)).toEqual(['packed'])
  })

  it('leave a work directory alone that was there before', async () => {
    using work = temporary('theirs')
    fs.mkdirSync(work.at('w'))
    fs.writeFileSync(work.at('w/precious'), 'x')
    await failOnce(work)
    await again(work)
    expect(fs.readdirSync(work.at('w'))).toEqual(['precious'])
  })
})

describe('two jobs at once', () => {
  it('with one target, one work directory and one build cache both succeed', async () => {
    using work = temporary('two')
    const maker = new LayoutMaker(work.at('source'))
    maker.name(maker.image(bigLayers(3, 'two')), 'x')
    await using serving = startNydusify(['serve', `oci:${work.at('registry')}`, '--listen', '127.0.0.1:0'])
    await until('the registry', () => /127\.0\.0\.1:\d+/.test(serving.text()))
    const host = /127\.0\.0\.1:\d+/.exec(serving.text())![0]
    const jobs = [1, 2].map(() => startNydusify(['convert', '--source', `oci:${work.at('source')}:x`, '--target', `${host}/app:t`, '--plain-http', '--build-cache-tag', 'cache', '--work-dir', work.at('w')]))
    for (const { ended } of jobs) {
      const { code, stderr } = await ended
      expect(code, stderr).toBe(0)
    }
    const third = await convert({ source: `oci:${work.at('source')}:x`, target: `${host}/app:again`, targetRegistry: { plainHttp: true }, buildCache: { reference: `${host}/app:cache`, registry: { plainHttp: true } }, workDirectory: work.at('w2') })
    expect(third.layers.map(({ origin }) => origin)).toEqual(['cached', 'cached', 'cached'])
    serving.child.kill('SIGTERM')
    expect((await serving.ended).code).toBe(0)
    expect(fs.existsSync(work.at('w'))).toBe(false)
  })
})

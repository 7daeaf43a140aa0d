// `nydusify convert`, registry to registry, against upstream's: alternating runs within one empty docker-registry. Prints JSON: wall and CPU
// seconds, peak memory of all processes together, sizes, and the ratios of the medians.
//   NYDUS_CORPUS=DIR/app [NYDUS_PEER_NYDUSIFY=… NYDUS_PEER_IMAGE=…] [ROUNDS=5] node bench/run.mjs image/convert

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { copyBlob, openSource, openTarget } from '../../src/registry/index.ts'
import { parseManifest } from '../../src/format/oci/descriptor.ts'
import { startDockerRegistry } from '../../test/support/docker-registry.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const TICK_MS = 10
const SAMPLE_MS = 20

interface Run { readonly wallSeconds: number; readonly cpuSeconds: number; readonly peakMiB: number; readonly targetMiB: number }

const corpus = process.env['NYDUS_CORPUS']
if (corpus === undefined) throw new Error('NYDUS_CORPUS: the OCI layout that bench/corpus.sh makes, DIR/app')
const [peer, peerBuilder] = [process.env['NYDUS_PEER_NYDUSIFY'], process.env['NYDUS_PEER_IMAGE']]
const rounds = Number(process.env['ROUNDS'] ?? 5)
const signal = new AbortController().signal
const plain = { plainHttp: true, signal }

/** Runs a program to its end; memory is that of it and all its descendants, sampled. */
async function measure(argv: readonly [string, ...string[]], sizeOf: () => Promise<number>): Promise<Run> {
  const started = performance.now()
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  let said = ''
  child.stderr.on('data', (data) => { said = (said + data).slice(-2000) })
  let [peak, running] = [0, true]
  const code = new Promise<number | null>((resolve) => { child.on('close', resolve) }).finally(() => { running = false })
  const cpu = new Map<number, number>()
  while (running) {
    let now = 0
    for (const pid of familyOf(child.pid!)) {
      const stat = processOf(pid)
      now += stat.rss
      cpu.set(pid, stat.cpu)
    }
    peak = Math.max(peak, now)
    await delay(SAMPLE_MS)
  }
  if (await code !== 0) throw new Error(`${argv.join(' ')}: ${said}`)
  const wallSeconds = (performance.now() - started) / 1000
  return { wallSeconds, cpuSeconds: [...cpu.values()].reduce((a, b) => a + b, 0), peakMiB: peak / 2 ** 20, targetMiB: await sizeOf() / 2 ** 20 }
}

function familyOf(root: number): number[] {
  const found = [root]
  for (let at = 0; at < found.length; at++) {
    for (const task of list(`/proc/${found[at]}/task`)) found.push(...read(`/proc/${found[at]}/task/${task}/children`).split(' ').filter(Boolean).map(Number))
  }
  return found
}

/** Bytes resident, and CPU seconds so far with those of children that were waited for. */
function processOf(pid: number): { rss: number; cpu: number } {
  const fields = read(`/proc/${pid}/stat`).replace(/^.*\) /s, '').split(' ').map(Number)
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15)
  return { rss: Number(/VmRSS:\s+(\d+)/.exec(read(`/proc/${pid}/status`))?.[1] ?? 0) * 1024, cpu: (user + system + childUser + childSystem) * TICK_MS / 1000 }
}

function read(file: string): string {
  try { return fs.readFileSync(file, 'utf8') } catch { return '' } // the process has ended in between
}

function list(directory: string): string[] {
  try { return fs.readdirSync(directory) } catch { return [] }
}

async function pushCorpus(reference: string): Promise<number> {
  await using source = await openSource(`oci:${corpus}:app`, { signal })
  await using target = await openTarget(reference, plain)
  const { bytes, descriptor } = await source.resolve({ signal })
  const manifest = parseManifest(bytes)
  for (const blob of [...manifest.layers, manifest.config]) await copyBlob(source, target, { descriptor: blob, signal })
  await target.pushManifest(bytes, { mediaType: descriptor.mediaType, final: true, signal })
  return manifest.layers.reduce((sum, { size }) => sum + size, 0)
}

async function layersOf(reference: string): Promise<number> {
  await using source = await openSource(reference, plain)
  return parseManifest((await source.resolve({ signal })).bytes).layers.reduce((sum, { size }) => sum + size, 0)
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!
const rounded = (value: number) => Number(value.toFixed(3))

function summary(runs: readonly Run[]) {
  const of = (key: keyof Run) => {
    const values = runs.map((run) => run[key])
    return { min: rounded(Math.min(...values)), median: rounded(median(values)), max: rounded(Math.max(...values)) }
  }
  return { wallSeconds: of('wallSeconds'), cpuSeconds: of('cpuSeconds'), peakMiB: of('peakMiB'), targetMiB: of('targetMiB') }
}

const work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-convert-'))
try {
  const [ours, theirs]: [Run[], Run[]] = [[], []]
  let sourceBytes = 0
  for (let round = 0; round < rounds; round++) {
    for (const side of peer === undefined ? ['ours'] : ['ours', 'theirs']) {
      const directory = path.join(work, `${round}-${side}`)
      await using registry = await startDockerRegistry(directory)
      // COMPAT: upstream's programs talk plain HTTP to localhost only
      const host = registry.host.replace('127.0.0.1', 'localhost')
      sourceBytes = await pushCorpus(`${host}/app:source`)
      const argv = ['convert', '--source', `${host}/app:source`, '--target', `${host}/app:${side}`, '--work-dir', path.join(directory, 'work')]
      const target = () => layersOf(`${host}/app:${side}`)
      if (side === 'ours') ours.push(await measure([process.execPath, path.join(ROOT, 'bin/nydusify'), ...argv, '--plain-http'], target))
      else theirs.push(await measure([peer!, ...argv, '--nydus-image', peerBuilder ?? 'nydus-image'], target))
    }
    fs.rmSync(work, { recursive: true, force: true })
    fs.mkdirSync(work)
  }
  const [a, b] = [summary(ours), theirs.length === 0 ? undefined : summary(theirs)]
  const ratio = (key: keyof Run) => (b === undefined ? undefined : rounded(a[key].median / b[key].median))
  process.stdout.write(`${JSON.stringify({
    bench: 'image/convert', rounds, sourceMiB: rounded(sourceBytes / 2 ** 20), ours: a, ...(b === undefined ? { note: 'without upstream\'s nydusify (NYDUS_PEER_NYDUSIFY): no ratios' } : { theirs: b }),
    ratios: { wall: ratio('wallSeconds'), cpu: ratio('cpuSeconds'), peak: ratio('peakMiB'), size: ratio('targetMiB'), sizeOfSource: rounded(a.targetMiB.median * 2 ** 20 / sourceBytes) },
  }, undefined, 2)}\n`)
} finally {
  fs.rmSync(work, { recursive: true, force: true })
}

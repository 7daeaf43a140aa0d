// Cold starts from an empty host: a Next.js server to its first page, and a Python program to its end, from a converted image of 1 GB behind a line
// with round trips, bandwidth and slow start. Each side converts the image with its own tools; runs alternate. With TRAINED=1 ours also starts
// with a trace of an earlier run. Needs root, python3, docker-registry, skopeo.
//   bench/corpus.sh DIR && bench/cold-start-corpus.sh DIR
//   NYDUS_COLD=DIR/cold [NYDUS_PEER_NYDUSD=… NYDUS_PEER_NYDUSIFY=… NYDUS_PEER_IMAGE=…] [LINES=0,30,50,50x12500000] [WORKLOADS=next,python] [TRAINED=1] [ROUNDS=3]
//   node bench/run.mjs serve/cold-start

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startDockerRegistry } from '../../test/support/docker-registry.ts'
import { coldStart, type ColdStartResult, type Line, LineProxy, type Workload } from './cold-start.ts'
import { servers, summary } from './stage.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const corpus = process.env['NYDUS_COLD']
if (corpus === undefined) throw new Error('NYDUS_COLD: the OCI layout that bench/cold-start-corpus.sh makes, DIR/cold')
const rounds = Number(process.env['ROUNDS'] ?? 3)
const workloads = (process.env['WORKLOADS'] ?? 'next,python').split(',').filter((name): name is Workload => name === 'next' || name === 'python')
const lines: Line[] = (process.env['LINES'] ?? '0,30,50').split(',').map((name) => {
  const [rtt = 0, rate = 0] = name.split('x').map(Number)
  return { name, delay_ms: rtt / 2, rate, slow_start: rate > 0 }
})

const work = mkdtempSync(path.join(tmpdir(), 'nydus-bench-cold-'))
try {
  await using registry = await startDockerRegistry(path.join(work, 'registry'))
  const host = registry.host.replace('127.0.0.1', 'localhost') // COMPAT: upstream's programs talk plain HTTP to localhost only
  execFileSync(path.join(ROOT, 'bin/nydusify'), ['convert', '--source', `oci:${corpus}:app`, '--target', `${host}/ours:app`, '--plain-http', '--work-dir', path.join(work, 'ours')], { stdio: 'ignore' })
  if (servers.length > 1) {
    execFileSync('skopeo', ['copy', '--insecure-policy', '--dest-tls-verify=false', `oci:${corpus}:app`, `docker://${host}/source:app`], { stdio: 'ignore' })
    execFileSync(process.env['NYDUS_PEER_NYDUSIFY'] ?? 'nydusify', ['convert', '--source', `${host}/source:app`, '--target', `${host}/upstream:app`, '--nydus-image', process.env['NYDUS_PEER_IMAGE'] ?? 'nydus-image', '--work-dir', path.join(work, 'theirs')], { stdio: 'ignore' })
  }
  using proxy = await LineProxy.start(registry.host)
  const results: object[] = []
  for (const workload of workloads) {
    const trace = process.env['TRAINED'] === undefined ? undefined : await traced(proxy, workload)
    for (const line of lines) {
      const runs = new Map<string, ColdStartResult[]>()
      const add = async (name: string, start: Parameters<typeof coldStart>[1]): Promise<void> => { runs.set(name, [...runs.get(name) ?? [], await coldStart(proxy, start)]) }
      for (let round = 0; round < rounds; round++) {
        for (const server of servers) await add(server.name, { server, image: `${server.name}:app`, workload, line })
        if (trace !== undefined) await add('trained', { server: servers[0]!, image: 'ours:app', workload, line, prefetchFiles: trace, config: { fs_prefetch: { enable: true, prefetch_all: false } } })
      }
      results.push({ workload, line: line.name, ...figures(runs) })
    }
  }
  process.stdout.write(`${JSON.stringify({ bench: 'serve/cold-start', node: process.version, rounds, peer: process.env['NYDUS_PEER_NYDUSD'] ?? 'none: compare with bench/baseline.json', results }, undefined, 2)}\n`)
} finally {
  rmSync(work, { recursive: true, force: true })
}

/** The trace of one run on a line without delay. */
async function traced(proxy: LineProxy, workload: Workload): Promise<string> {
  const ctl = (socket: string, ...args: string[]): string => execFileSync(path.join(ROOT, 'bin/nydusctl'), ['--sock', socket, 'trace', ...args], { encoding: 'utf8' })
  let text = ''
  await coldStart(proxy, {
    server: servers[0]!, image: 'ours:app', workload, line: { name: '0', delay_ms: 0, rate: 0, slow_start: false },
    begin: (socket) => { ctl(socket, 'start') }, before: async (socket) => { text = ctl(socket, 'stop') },
  })
  if (process.env['TRACE_OUT'] !== undefined) writeFileSync(`${process.env['TRACE_OUT']}.${workload}`, text)
  return text
}

function figures(runs: ReadonlyMap<string, readonly ColdStartResult[]>): object {
  const of = (key: keyof ColdStartResult): Record<string, object> => Object.fromEntries([...runs].map(([name, list]) => [name, summary(list.map((run) => run[key] * 100)), ] as const).map(([name, { median, min, max }]) => [name, { median: median / 100, min: min / 100, max: max / 100 }]))
  const middle = (name: string, key: keyof ColdStartResult): number => [...runs.get(name) ?? []].map((run) => run[key]).sort((a, b) => a - b)[(runs.get(name)?.length ?? 0) >> 1] ?? Number.NaN
  const ratio = (key: keyof ColdStartResult): number => Math.round(middle('ours', key) / middle('upstream', key) * 100) / 100
  return {
    totalSeconds: of('totalSeconds'), requests: of('requests'), blobMiB: of('blobMiB'), pssMiB: of('pssMiB'), cpuSeconds: of('cpuSeconds'),
    ...(runs.has('upstream') && { ratios: { time: ratio('totalSeconds'), requests: ratio('requests'), bytes: ratio('blobMiB') } }),
  }
}

// From the start of nydusd to the first byte of a file, 100,000 inodes, local blobs, beside `node -e 0`. Alternating; medians.
//   [NYDUS_PEER_NYDUSD=/path/of/nydusd] [BENCH_ROUNDS=20] node bench/run.mjs serve/start

import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { servers, Stage, summary, waitFor, isMounted } from './stage.ts'

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 20)

using stage = new Stage((directory) => {
  for (let d = 0; d < 500; d++) {
    mkdirSync(path.join(directory, `d${d}`))
    for (let f = 0; f < 200; f++) writeFileSync(path.join(directory, `d${d}`, `f${f}`), `${d} ${f}\n`)
  }
})
const times: Record<string, number[]> = { 'node -e 0': [] }
for (let round = 0; round < ROUNDS; round++) {
  for (const server of servers) {
    const from = performance.now()
    stage.serve(server, () => {
      waitFor(() => isMounted(stage.mountpoint))
      spawnSync('head', ['-c', '1', path.join(stage.mountpoint, 'd250/f100')])
      times[server.name] = [...times[server.name] ?? [], performance.now() - from]
    })
  }
  const from = performance.now()
  spawnSync(process.execPath, ['-e', '0'])
  times['node -e 0']!.push(performance.now() - from)
}
process.stdout.write(`${JSON.stringify({ bench: 'serve/start', node: process.version, rounds: ROUNDS, unit: 'ms', results: Object.fromEntries(Object.entries(times).map(([name, values]) => [name, summary(values)])) }, null, 2)}\n`)

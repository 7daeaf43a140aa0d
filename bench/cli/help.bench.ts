// How much longer than `node -e 0` the programs take to say their help or version. Alternating; prints JSON with medians in milliseconds.
//   [ROUNDS=20] node bench/run.mjs cli/help

import { spawnSync } from 'node:child_process'
import path from 'node:path'

const ROOT = path.resolve(import.meta.dirname, '../..')
const rounds = Number(process.env['ROUNDS'] ?? 20)
const commands: Readonly<Record<string, readonly string[]>> = {
  'node -e 0': ['-e', '0'],
  'nydus-image create -h': [path.join(ROOT, 'bin/nydus-image'), 'create', '-h'],
  'nydusify --version': [path.join(ROOT, 'bin/nydusify'), '--version'],
  'nydusd --version': [path.join(ROOT, 'bin/nydusd'), '--version'],
}

const times = new Map(Object.keys(commands).map((name) => [name, [] as number[]]))
for (let round = 0; round < rounds; round++) {
  for (const [name, argv] of Object.entries(commands)) {
    const start = performance.now()
    spawnSync(process.execPath, argv, { stdio: 'ignore' })
    times.get(name)!.push(performance.now() - start)
  }
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
const bare = median(times.get('node -e 0')!)
const results = [...times].map(([name, list]) => ({ name, medianMs: Math.round(median(list)), minMs: Math.round(Math.min(...list)), overNodeMs: Math.round(median(list) - bare) }))
process.stdout.write(`${JSON.stringify({ bench: 'help', rounds, results }, null, 2)}\n`)

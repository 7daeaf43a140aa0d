// Runs programs in turns under time(1) and tells wall and CPU seconds and peak memory, and the ratios of the medians.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export interface Run { readonly wallSeconds: number; readonly cpuSeconds: number; readonly peakMiB: number; readonly outputMiB: number }

export interface Contestant {
  readonly name: string
  /** The command that builds into `output`, an empty directory. */
  readonly argv: (output: string) => readonly [string, ...string[]]
}

/** One run in a fresh directory, which is gone afterwards. `sizeOf` tells the bytes of the result. */
function measure({ name, argv }: Contestant, sizeOf: (output: string) => number): Run {
  const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-'))
  try {
    const report = path.join(base, 'time')
    const output = path.join(base, 'out')
    spawnSync('mkdir', [output])
    const { status, stderr } = spawnSync('/usr/bin/time', ['-f', '%e %U %S %M', '-o', report, ...argv(output)], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] })
    if (status !== 0) throw new Error(`${name}: ${stderr.slice(-500)}`)
    const [wall, user, system, kilobytes] = readFileSync(report, 'utf8').trim().split(' ').map(Number)
    return { wallSeconds: wall!, cpuSeconds: user! + system!, peakMiB: kilobytes! / 1024, outputMiB: sizeOf(output) / 2 ** 20 }
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}

/** `rounds` runs of each contestant in turns after one that does not count; prints JSON. Ratios are of the first to the second. */
export function compete(title: string, contestants: readonly Contestant[], { rounds, sizeOf }: { readonly rounds: number; readonly sizeOf: (output: string) => number }): void {
  for (const contestant of contestants) measure(contestant, sizeOf)
  const runs = new Map(contestants.map(({ name }) => [name, [] as Run[]]))
  for (let round = 0; round < rounds; round++) for (const contestant of contestants) runs.get(contestant.name)!.push(measure(contestant, sizeOf))
  const keys = ['wallSeconds', 'cpuSeconds', 'peakMiB', 'outputMiB'] as const
  const results = Object.fromEntries([...runs].map(([name, list]) => [name, Object.fromEntries(keys.map((key) => [key, spread(list.map((run) => run[key]))]))]))
  const [ours, theirs] = [...runs.values()]
  const ratios = theirs === undefined ? undefined : Object.fromEntries(keys.map((key) => [key, round3(median(ours!.map((run) => run[key])) / median(theirs.map((run) => run[key])))]))
  process.stdout.write(`${JSON.stringify({ bench: title, rounds, results, ratios }, null, 2)}\n`)
}

function spread(values: readonly number[]): { min: number; median: number; max: number } {
  return { min: round3(Math.min(...values)), median: round3(median(values)), max: round3(Math.max(...values)) }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}

function round3(value: number): number {
  return Math.round(value * 1000) / 1000
}

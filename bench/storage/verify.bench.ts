// What verifying every chunk costs of the CPU time that nydusd takes to fill a cache: all files of an image read through a mount with an empty cache,
// with and without, in turns. The least of each counts: whatever else runs adds.
//   [BENCH_TREE=/usr/src/linux] [BENCH_ROUNDS=7] node bench/run.mjs storage/verify

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

const ROOT = path.resolve(import.meta.dirname, '../..')
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 7)
const TREE = process.env['BENCH_TREE'] ?? path.join(ROOT, 'node_modules')
/** /proc counts in hundredths of a second. */
const TICKS = 100

const work = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-'))
try {
  const results: Record<string, object> = {}
  for (const digester of ['blake3', 'sha256']) results[digester] = await compare(digester)
  process.stdout.write(`${JSON.stringify({ bench: 'storage/verify', rounds: ROUNDS, note: 'CPU seconds of nydusd', results }, null, 2)}\n`)
} finally {
  rmSync(work, { recursive: true, force: true })
}

async function compare(digester: string): Promise<object> {
  const blobs = path.join(work, digester)
  const boot = path.join(work, `${digester}.boot`)
  mkdirSync(blobs)
  execFileSync(path.join(ROOT, 'bin/nydus-image'), ['create', '--log-level', 'warn', '--digester', digester, '--compressor', 'zstd', '--bootstrap', boot, '--blob-dir', blobs, TREE], { stdio: 'ignore' })
  const seconds: Record<'verified' | 'unverified', number[]> = { verified: [], unverified: [] }
  await fill(boot, blobs, true)
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of round % 2 === 0 ? ['verified', 'unverified'] as const : ['unverified', 'verified'] as const) seconds[name].push(await fill(boot, blobs, name === 'verified'))
  }
  const [verified, unverified] = [Math.min(...seconds.verified), Math.min(...seconds.unverified)]
  return { ...seconds, shareOfFill: Number(((verified - unverified) / verified).toFixed(3)) }
}

/** CPU seconds that a daemon with an empty cache takes to give out all files. */
async function fill(bootstrap: string, dir: string, validate: boolean): Promise<number> {
  const folder = mkdtempSync(path.join(work, 'run-'))
  const [mountpoint, config, sock] = ['mnt', 'config.json', 'api.sock'].map((name) => path.join(folder, name)) as [string, string, string]
  mkdirSync(mountpoint)
  writeFileSync(config, JSON.stringify({ version: 2, backend: { type: 'localfs', localfs: { dir } }, cache: { type: 'blobcache', validate, filecache: { work_dir: path.join(folder, 'cache') } }, rafs: {} }))
  const daemon = spawn(path.join(ROOT, 'bin/nydusd'), ['--config', config, '--bootstrap', bootstrap, '--mountpoint', mountpoint, '--apisock', sock, '--log-level', 'error'], { stdio: 'ignore' })
  try {
    while (!existsSync(sock)) await delay(20)
    const before = cpuOf(daemon.pid!)
    execFileSync('bash', ['-c', 'cd "$1" && find . -type f -print0 | xargs -0 cat > /dev/null', '-', mountpoint])
    await delay(1000) // the last chunks are stored and synced behind the reads
    return cpuOf(daemon.pid!) - before
  } finally {
    daemon.kill('SIGTERM')
    await new Promise((resolve) => daemon.once('close', resolve))
    rmSync(folder, { recursive: true, force: true })
  }
}

function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

// Server CPU of `nydusd virtiofs --shared-dir` beside the virtiofsd of Debian's QEMU: one real guest mounts both and does the same in each, in turns.
//   [BENCH_ROUNDS=3] [BENCH_VIRTIOFSD=/usr/lib/qemu/virtiofsd] node bench/run.mjs serve/virtiofs

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { bootGuest } from '../../test/support/guest.ts'

const NYDUSD = path.resolve(import.meta.dirname, '../../bin/nydusd')
const VIRTIOFSD = process.env['BENCH_VIRTIOFSD'] ?? '/usr/lib/qemu/virtiofsd'
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
const DIRECTORIES = 30
const FILES = 50

/** By name: what the guest does in $d, and how many operations that is (of files, or of 128 KiB). */
const WORK: Readonly<Record<string, readonly [string, number]>> = {
  'find, nothing cached': ['find $d/tree >/dev/null', DIRECTORIES * FILES],
  'ls -l, hot': ['ls -lR $d/tree >/dev/null; ls -lR $d/tree >/dev/null', 2 * DIRECTORIES * FILES],
  'read small files': ['cat $d/tree/*/* >/dev/null', DIRECTORIES * FILES],
  'create, write, remove': ['i=0; while [ $i -lt 300 ]; do echo $i >$d/n$i; i=$((i+1)); done; rm $d/n*', 300],
  'append lines': ['i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done >>$d/log; rm $d/log', 1000],
  'write 32 MiB': ['dd if=/dev/zero of=$d/new bs=128k count=256 2>/dev/null; rm $d/new', 256],
  'read 64 MiB': ['dd if=$d/big of=/dev/null bs=128k 2>/dev/null', 512],
}

/** CPU time of all threads that a process has, ms. */
function cpuMs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, task) => sum + Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'latin1').split(' ')[0]) / 1e6, 0)
}

function makeTree(directory: string): void {
  for (let d = 0; d < DIRECTORIES; d++) {
    mkdirSync(path.join(directory, 'tree', `d${d}`), { recursive: true })
    for (let f = 0; f < FILES; f++) writeFileSync(path.join(directory, 'tree', `d${d}`, `f${f}`), 'x'.repeat(100 + f * 37))
  }
  writeFileSync(path.join(directory, 'big'), Buffer.alloc(2 ** 26, 'big file '))
}

async function appears(file: string): Promise<void> {
  for (const end = Date.now() + 20_000; !existsSync(file); await new Promise((resolve) => setTimeout(resolve, 20))) if (Date.now() > end) throw new Error(`${file} does not appear`)
}

function serve(name: string, argv: readonly [string, ...string[]]): ChildProcess {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text })
  child.once('exit', (status) => { if (status !== 0 && status !== null) process.stderr.write(`${name} ended with ${status}: ${stderr.slice(-1000)}\n`) })
  return child
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-'))
const [ours, theirs] = ['ours', 'theirs'].map((name) => path.join(base, name)) as [string, string]
const socket = (directory: string): string => `${directory}.sock`
const children: ChildProcess[] = []
try {
  for (const directory of [ours, theirs]) {
    mkdirSync(directory)
    makeTree(directory)
  }
  children.push(serve('nydusd', [NYDUSD, 'virtiofs', '--sock', socket(ours), '--shared-dir', ours]))
  // xattr and ACLs: as ours has them
  children.push(serve('virtiofsd', [VIRTIOFSD, `--socket-path=${socket(theirs)}`, '-o', `source=${theirs}`, '-o', 'sandbox=chroot', '-o', 'xattr', '-o', process.env['BENCH_VIRTIOFSD_OPTIONS'] ?? 'cache=auto']))
  for (const directory of [ours, theirs]) await appears(socket(directory))
  const script = ['mkdir /a /b; mount -t virtiofs a /a; mount -t virtiofs b /b; echo; echo ready',
    // the first round warms both up and is not counted
    `for round in ${Array.from({ length: ROUNDS + 1 }, (_, i) => i).join(' ')}; do`,
    ...Object.values(WORK).map(([work], i) => `for d in /a /b; do sync; echo 3 >/proc/sys/vm/drop_caches; echo "BEGIN $round ${i} $d"; read go; ${work}; echo "END $round ${i} $d"; read go; done`),
    'done'].join('\n')
  await using guest = bootGuest(script, { shares: { a: socket(ours), b: socket(theirs) }, memoryMiB: 512 })
  const results = new Map(Object.keys(WORK).map((name) => [name, { '/a': [] as number[], '/b': [] as number[] }]))
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, name] of Object.keys(WORK).entries()) {
      for (const d of ['/a', '/b'] as const) {
        const pid = children[d === '/a' ? 0 : 1]!.pid!
        await guest.appeared(`BEGIN ${round} ${i} ${d}`)
        const before = cpuMs(pid)
        guest.type('\n')
        await guest.appeared(`END ${round} ${i} ${d}`)
        await new Promise((resolve) => setTimeout(resolve, 30))
        if (round > 0) results.get(name)![d].push(cpuMs(pid) - before)
        guest.type('\n')
      }
    }
  }
  const rows = Object.fromEntries([...results].map(([name, { '/a': a, '/b': b }]) => {
    const operations = WORK[name]![1]
    return [name, { microsecondsPerOperation: { nydusd: Math.round(median(a) * 1000 / operations), virtiofsd: Math.round(median(b) * 1000 / operations) }, ratio: Math.round(100 * median(a) / median(b)) / 100 }]
  }))
  const total = (d: '/a' | '/b'): number => [...results.values()].reduce((sum, one) => sum + median(one[d]), 0)
  process.stdout.write(`${JSON.stringify({ bench: 'serve/virtiofs', rounds: ROUNDS, results: rows, ratio: Math.round(100 * total('/a') / total('/b')) / 100 }, null, 2)}\n`)
} finally {
  for (const child of children) child.kill('SIGTERM')
  rmSync(base, { recursive: true, force: true })
}

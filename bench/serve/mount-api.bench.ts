// Mounting and unmounting by API in a daemon that runs, in turns with upstream's nydusd in the same minute: an image of 24 files (p50, p99), and the
// umount of one of 80,000 inodes that all were looked up. Needs root.
//   [NYDUS_PEER_NYDUSD=PATH] [BENCH_ROUNDS=200] node bench/run.mjs serve/mount-api

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { isMounted, waitFor } from './stage.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 200)
const SMALL = path.join(ROOT, 'fixtures/vectors/v6-small-zstd/image.boot')
const WALKS = 3

interface Side { readonly name: string; readonly child: ChildProcess; readonly mountpoint: string; readonly ask: (method: string, mountpoint: string, source?: string) => Promise<number> }

const base = mkdtempSync(path.join(tmpdir(), 'nydus-bench-api-'))
mkdirSync(path.join(base, 'blobs'))

function start(name: string, program: string, more: readonly string[]): Side {
  const at = (file: string): string => path.join(base, `${name}-${file}`)
  mkdirSync(at('mnt'))
  const child = spawn(program, ['--mountpoint', at('mnt'), '--apisock', at('sock'), '--log-level', 'error', ...more], { stdio: 'ignore' })
  const config = JSON.stringify({
    device: { backend: { type: 'localfs', config: { dir: path.join(ROOT, 'fixtures/vectors/blobs') } }, cache: { type: 'blobcache', config: { work_dir: at('cache') } } },
    mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false },
  })
  mkdirSync(at('cache'))
  const agent = new Agent({ keepAlive: true })
  return {
    name, child, mountpoint: at('mnt'),
    ask: (method, mountpoint, source) => new Promise((resolve, reject) => {
      const from = performance.now()
      const body = source === undefined ? '' : JSON.stringify({ fs_type: 'rafs', source, config })
      request({ socketPath: at('sock'), agent, method, path: `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint)}`, headers: { 'content-length': Buffer.byteLength(body) } }, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (part: string) => { text += part })
        response.on('end', () => (response.statusCode === 204 ? resolve(performance.now() - from) : reject(new Error(`${name}, ${method} ${mountpoint}: ${response.statusCode} ${text}`))))
      }).on('error', reject).end(body)
    }),
  }
}

const percentile = (times: readonly number[], share: number): number => times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))]!
const rounded = (value: number): number => Math.round(value * 100) / 100

const large = path.join(base, 'large.boot')
for (let d = 0; d < 400; d++) {
  mkdirSync(path.join(base, 'tree', `directory-${d}`), { recursive: true })
  for (let f = 0; f < 200; f++) writeFileSync(path.join(base, 'tree', `directory-${d}`, `file-with-a-name-${f}`), '')
}
execFileSync(path.join(ROOT, 'bin/nydus-image'), ['create', '--bootstrap', large, '--blob-dir', path.join(base, 'blobs'), path.join(base, 'tree')], { stdio: 'ignore' })
const peer = process.env['NYDUS_PEER_NYDUSD']
const sides = [start('ours', path.join(ROOT, 'bin/nydusd'), []), ...(peer === undefined ? [] : [start('upstream', peer, ['--rlimit-nofile', '0'])])]
const figures: Record<string, object> = {}
try {
  const times = new Map(sides.map(({ name }) => [name, { mount: [] as number[], umount: [] as number[], walked: [] as number[] }]))
  for (const { mountpoint, name } of sides) waitFor(() => isMounted(mountpoint) && existsSync(path.join(base, `${name}-sock`)))
  for (const { ask } of sides) for (let i = 0; i < 5; i++) { await ask('POST', '/warm', SMALL); await ask('DELETE', '/warm') }
  for (let i = 0; i < ROUNDS; i++) {
    for (const { name, ask } of sides) {
      times.get(name)!.mount.push(await ask('POST', `/m${i % 7}`, SMALL))
      times.get(name)!.umount.push(await ask('DELETE', `/m${i % 7}`))
    }
  }
  for (let i = 0; i < WALKS; i++) {
    for (const { name, ask, mountpoint } of sides) {
      await ask('POST', '/large', large)
      execFileSync('sh', ['-c', 'find . -ls > /dev/null'], { cwd: path.join(mountpoint, 'large') })
      times.get(name)!.walked.push(await ask('DELETE', '/large'))
    }
  }
  for (const [name, { mount, umount, walked }] of times) {
    figures[name] = {
      mountMs: { p50: rounded(percentile(mount, 0.5)), p99: rounded(percentile(mount, 0.99)) }, umountMs: { p50: rounded(percentile(umount, 0.5)), p99: rounded(percentile(umount, 0.99)) },
      umountOf80000WalkedMs: rounded(percentile(walked, 0.5)),
    }
  }
} finally {
  for (const { child, mountpoint } of sides) {
    child.kill('SIGTERM')
    await new Promise((resolve) => (child.exitCode === null && child.signalCode === null ? child.once('exit', resolve) : resolve(undefined)))
    while (isMounted(mountpoint)) execFileSync('umount', ['-l', mountpoint])
  }
  rmSync(base, { recursive: true })
}
process.stdout.write(`${JSON.stringify({ bench: 'serve/mount-api', rounds: ROUNDS, ...figures }, null, 2)}\n`)

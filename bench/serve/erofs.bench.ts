// Kernel EROFS by our daemon beside plain EROFS on the same bytes: data and metadata, page cache dropped and hot; and the time of a mount of
// 100,000 inodes by API, and the first walk after a restart. `direct`: blobs complete and verified, the cache files are the devices. Needs root and fio.
//   [BENCH_TREE=/usr/src/linux] [BENCH_ROUNDS=5] node bench/run.mjs serve/erofs

import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { mountFileSystem } from '../../src/native/mount.ts'
import { largeBootstrap } from '../../test/support/large-image.ts'
import { dropCaches, isMounted, measure, type Sample, summary, waitFor } from './stage.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
const MIB = 256
const fio = (pattern: string, block: string, more = ''): string => `fio --name=b --filename=big --readonly --rw=${pattern} --bs=${block} --ioengine=psync --output=/dev/null ${more}`
const COMMANDS: Readonly<Record<string, string>> = {
  'sequential 1M': fio('read', '1m'), 'random 4K': fio('randread', '4k', '--io_size=64m --randseed=1'), find: 'find . -ls', tar: 'tar c . | cat',
}

const base = mkdtempSync(path.join(tmpdir(), 'nydus-bench-erofs-'))
const at = (name: string): string => path.join(base, name)
const request = (...args: string[]): string => execFileSync('curl', ['-sS', '--fail-with-body', '--unix-socket', at('api.sock'), ...args], { encoding: 'utf8' })
const umount = (name: string): void => { while (isMounted(at(name))) execFileSync('umount', [at(name)]) }

function makeImage(): void {
  for (const name of ['tree', 'blobs', 'plain', 'fileio', 'direct', 'many', 'root']) mkdirSync(at(name))
  for (let i = 0; i < MIB; i++) appendFileSync(path.join(at('tree'), 'big'), Buffer.concat([randomBytes(2 ** 19), Buffer.alloc(2 ** 19, 'compressible ')]))
  const given = process.env['BENCH_TREE']
  if (given !== undefined) cpSync(given, path.join(at('tree'), 'small'), { recursive: true })
  else {
    for (let d = 0; d < 100; d++) {
      mkdirSync(path.join(at('tree'), `d${d}`))
      for (let f = 0; f < 100; f++) writeFileSync(path.join(at('tree'), `d${d}`, `f${f}`), Buffer.alloc(500 + (f * 37 + d * 11) % 5000, `${d}/${f} `))
    }
  }
  execFileSync(path.join(ROOT, 'bin/nydus-image'), ['create', '--bootstrap', at('boot'), '--blob-dir', at('blobs'), '--compressor', 'lz4_block', at('tree')], { stdio: 'ignore' })
  writeFileSync(at('config.json'), JSON.stringify({ version: 2, backend: { type: 'localfs', localfs: { dir: at('blobs') } }, cache: { type: 'blobcache', filecache: { work_dir: at('cache') } } }))
  writeFileSync(at('many.boot'), largeBootstrap(Array.from({ length: 500 }, () => 200)))
}

function mountByApi(name: string, boot: string): number {
  const body = JSON.stringify({ fs_type: 'erofs', source: boot, config: readFileSync(at('config.json'), 'utf8'), fill: 'fileio' })
  writeFileSync(at('body.json'), body)
  // curl's own clock: starting it takes longer than the mount
  return Number(request('-w', '%{time_total}', '-o', '/dev/null', '-X', 'POST', '--data', `@${at('body.json')}`, `http://localhost/api/v1/mount?mountpoint=${at(name)}`)) * 1000
}

/** Not by mount(8), which puts a loop device under the bootstrap: the driver takes no files beside one. */
const mountPlain = (name: string, boot: string, data: string): Promise<void> => mountFileSystem({ type: 'erofs', options: [['source', boot], ['device', path.join(at('cache'), data)]], target: at(name) })

const samples = new Map<string, Sample[]>()
const note = (name: string, sample: Sample): void => { samples.set(name, [...samples.get(name) ?? [], sample]) }
const milliseconds: Record<string, number[]> = { 'mount of 100,000 inodes': [], 'first walk of 100,000 inodes': [], 'first walk, plain EROFS': [] }

makeImage()
const daemon = spawn(path.join(ROOT, 'bin/nydusd'), ['--mountpoint', at('root'), '--apisock', at('api.sock'), '--run-dir', at('run')], { stdio: ['ignore', 'ignore', 'inherit'] })
try {
  waitFor(() => existsSync(at('api.sock')))
  mountByApi('fileio', at('boot'))
  execFileSync('sh', ['-c', 'tar c . | cat > /dev/null'], { cwd: at('fileio') }) // fetches and verifies everything
  mountByApi('direct', at('boot'))
  const data = readdirSync(at('cache')).find((name) => name.endsWith('.blob.data'))!
  await mountPlain('plain', at('boot'), data)
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, command] of Object.entries(COMMANDS)) {
      for (const way of ['plain', 'direct', 'fileio']) {
        dropCaches()
        note(`${name}, dropped, ${way}`, measure(daemon.pid!, at(way), command))
        measure(daemon.pid!, at(way), 'cat big')
        note(`${name}, hot, ${way}`, measure(daemon.pid!, at(way), command))
      }
    }
    milliseconds['mount of 100,000 inodes']!.push(mountByApi('many', at('many.boot')))
    request('-X', 'DELETE', `http://localhost/api/v1/mount?mountpoint=${at('many')}`)
    dropCaches()
    mountByApi('many', at('many.boot'))
    milliseconds['first walk of 100,000 inodes']!.push(measure(daemon.pid!, at('many'), 'find . -ls').wallMs)
    request('-X', 'DELETE', `http://localhost/api/v1/mount?mountpoint=${at('many')}`)
    dropCaches()
    await mountPlain('many', at('many.boot'), data)
    milliseconds['first walk, plain EROFS']!.push(measure(daemon.pid!, at('many'), 'find . -ls').wallMs)
    umount('many')
  }
} finally {
  umount('plain')
  daemon.kill('SIGTERM')
  waitFor(() => !isMounted(at('root')))
  rmSync(base, { recursive: true, force: true })
}
const median = (name: string): number => summary(samples.get(name)!.map(({ wallMs }) => wallMs)).median
const results = [...samples].map(([name, list]) => {
  const plain = median(name.replace(/, \w+$/, ', plain'))
  return { name, wallMs: summary(list.map(({ wallMs }) => wallMs)), cpuMs: summary(list.map(({ cpuMs }) => cpuMs)), speedOfPlain: Number((plain / median(name)).toFixed(2)) }
})
process.stdout.write(`${JSON.stringify({ bench: 'serve/erofs', rounds: ROUNDS, results, milliseconds: Object.fromEntries(Object.entries(milliseconds).map(([name, list]) => [name, list.length === 0 ? undefined : summary(list)])) }, null, 2)}\n`)

// Cache directories that pass between upstream's nydusd and ours, in both directions, encrypted or not. Run by scripts/interop.sh.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '../..')
const nydusd = { ours: path.join(ROOT, 'bin/nydusd'), peer: process.env['NYDUS_PEER_NYDUSD']! }

let work: string
let source: string
let boot: string
const children: ChildProcess[] = []
beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-peer-cache-'))
  execFileSync('python3', [path.join(ROOT, 'fixtures/vectors/make_source.py'), path.join(work, 'source')], { stdio: 'ignore' })
  source = path.join(work, 'source', 'rich')
  boot = path.join(work, 'boot')
  fs.mkdirSync(path.join(work, 'blobs'))
  execFileSync(path.join(ROOT, 'bin/nydus-image'), ['create', '--log-level', 'warn', '--bootstrap', boot, '--blob-dir', path.join(work, 'blobs'), '--chunk-size', '0x10000', source])
})
afterAll(async () => {
  for (const child of children) if (child.exitCode === null) child.kill('SIGTERM')
  await sleep(300)
  for (const mount of fs.readFileSync('/proc/self/mounts', 'utf8').split('\n').map((line) => line.split(' ')[1] ?? '').filter((one) => one.startsWith(work))) spawnSync('umount', ['-l', mount])
  fs.rmSync(work, { recursive: true, force: true })
})

const listing = (dir: string): string => execFileSync('bash', ['-c', 'cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum', '-', dir], { encoding: 'latin1', maxBuffer: 64 * 2 ** 20 })

/** Serves the image through `cache`, reads all of it, and ends in good order. `blobs`: where the backend looks. */
async function readThrough(program: string, { cache, blobs, files = {} }: { readonly cache: string; readonly blobs: string; readonly files?: object }): Promise<string> {
  const folder = fs.mkdtempSync(path.join(work, 'run-'))
  const [mountpoint, config, sock] = ['mnt', 'config.json', 'api.sock'].map((name) => path.join(folder, name)) as [string, string, string]
  fs.mkdirSync(mountpoint)
  fs.writeFileSync(config, JSON.stringify({
    version: 2, backend: { type: 'localfs', localfs: { dir: blobs } }, cache: { type: 'blobcache', filecache: { work_dir: cache, ...files } }, rafs: { mode: 'direct', enable_xattr: true },
  }))
  const child = spawn(program, ['--config', config, '--bootstrap', boot, '--mountpoint', mountpoint, '--apisock', sock, '--log-level', 'warn', '--rlimit-nofile', '0'], { stdio: 'ignore' })
  children.push(child)
  for (const end = Date.now() + 15_000; !(fs.existsSync(sock) && fs.statSync(mountpoint).dev !== fs.statSync(folder).dev); await sleep(20)) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${program} does not mount`)
  }
  const seen = listing(mountpoint)
  await sleep(700) // upstream writes its cache behind the reads
  child.kill('SIGTERM')
  await new Promise((resolve) => child.once('close', resolve))
  return seen
}

/** A backend that has the blob's name and length, and nothing right in it: what is read must come from the cache. */
function hollowBlobs(): string {
  const blobs = fs.mkdtempSync(path.join(work, 'hollow-'))
  for (const name of fs.readdirSync(path.join(work, 'blobs'))) {
    fs.writeFileSync(path.join(blobs, name), '')
    fs.truncateSync(path.join(blobs, name), fs.statSync(path.join(work, 'blobs', name)).size)
  }
  return blobs
}

const key = randomBytes(32).toString('hex')
const KINDS: readonly (readonly [string, object])[] = [
  ['plain', {}],
  ['encrypted', { enable_encryption: true, encryption_key: key }],
  ['convergent', { enable_encryption: true, enable_convergent_encryption: true, encryption_key: key }],
]

describe.each(KINDS)('a cache directory (%s)', (_, files) => {
  it.each([['peer', 'ours'], ['ours', 'peer']] as const)('that %s filled is used by %s without fetching', async (first, second) => {
    const cache = fs.mkdtempSync(path.join(work, 'cache-'))
    const blobs = path.join(work, 'blobs')
    expect(await readThrough(nydusd[first], { cache, blobs, files })).toBe(listing(source))
    expect(await readThrough(nydusd[second], { cache, blobs: hollowBlobs(), files })).toBe(listing(source))
  })

  it('is the same, byte for byte, whoever filled it', async () => {
    const caches = [fs.mkdtempSync(path.join(work, 'cache-')), fs.mkdtempSync(path.join(work, 'cache-'))] as const
    await readThrough(nydusd.ours, { cache: caches[0], blobs: path.join(work, 'blobs'), files })
    await readThrough(nydusd.peer, { cache: caches[1], blobs: path.join(work, 'blobs'), files })
    for (const name of fs.readdirSync(caches[0])) expect(fs.readFileSync(path.join(caches[0], name)).equals(fs.readFileSync(path.join(caches[1], name))), name).toBe(true)
  })
})

// Both ways between our programs and upstream's own. Run by scripts/interop.sh.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { LayoutMaker, sha256, type TestLayer } from '../image/make-image.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const ours = { image: path.join(ROOT, 'bin/nydus-image'), nydusd: path.join(ROOT, 'bin/nydusd'), nydusify: path.join(ROOT, 'bin/nydusify') }
const peer = { image: process.env['NYDUS_PEER_IMAGE']!, nydusd: process.env['NYDUS_PEER_NYDUSD']!, nydusify: process.env['NYDUS_PEER_NYDUSIFY'] }

let work: string
let source: string
const children: ChildProcess[] = []

beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-peer-'))
  source = path.join(work, 'source')
  execFileSync('python3', [path.join(ROOT, 'fixtures/vectors/make_source.py'), source], { stdio: 'ignore' })
  source = path.join(source, 'rich')
})

afterAll(async () => {
  for (const child of children) if (child.exitCode === null) child.kill('SIGTERM')
  await sleep(300)
  for (const mount of fs.readFileSync('/proc/self/mounts', 'utf8').split('\n').map((line) => line.split(' ')[1] ?? '').filter((one) => one.startsWith(work))) spawnSync('umount', ['-l', mount])
  fs.rmSync(work, { recursive: true, force: true })
})

/** What a person compares: type, mode, owner, size of files, link target, content. */
function listing(dir: string): string {
  return execFileSync('bash', ['-c', `cd "$1" && { find . -mindepth 1 -printf '%P %y %m %U %G %l\\n'; find . -type f -printf '%s %P\\n'; find . -type f -print0 | sort -z | xargs -0 sha256sum; } | LC_ALL=C sort`, '-', dir],
    { encoding: 'latin1', maxBuffer: 64 * 2 ** 20 })
}

async function mounted(nydusd: string, boot: string, blobs: string): Promise<{ mountpoint: string; stop: () => Promise<void> }> {
  const folder = fs.mkdtempSync(path.join(work, 'run-'))
  const [mountpoint, cache, config, sock] = ['mnt', 'cache', 'config.json', 'api.sock'].map((name) => path.join(folder, name)) as [string, string, string, string]
  fs.mkdirSync(mountpoint)
  fs.mkdirSync(cache)
  fs.writeFileSync(config, JSON.stringify({ device: { backend: { type: 'localfs', config: { dir: blobs } }, cache: { type: 'blobcache', config: { work_dir: cache } } },
    mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false } }))
  const child = spawn(nydusd, ['--config', config, '--bootstrap', boot, '--mountpoint', mountpoint, '--apisock', sock, '--log-level', 'warn', '--rlimit-nofile', '0'], { stdio: 'ignore' })
  children.push(child)
  const end = Date.now() + 15_000
  while (!(fs.existsSync(sock) && fs.statSync(mountpoint).dev !== fs.statSync(folder).dev)) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${nydusd} does not mount ${boot}`)
    await sleep(20)
  }
  return { mountpoint, stop: async () => { child.kill('SIGTERM'); await new Promise((resolve) => child.once('close', resolve)) } }
}

const OPTIONS: readonly (readonly string[])[] = [[], ['--compressor', 'none'], ['--compressor', 'lz4_block', '--digester', 'sha256'], ['--chunk-size', '0x1000'], ['--batch-size', '0x100000']]

describe('images between our programs and upstream\'s', () => {
  for (const options of OPTIONS) {
    for (const [builder, reader] of [['ours', 'peer'], ['peer', 'ours']] as const) {
      it(`create ${options.join(' ')} by ${builder} is read by ${reader}`, async () => {
        const folder = fs.mkdtempSync(path.join(work, 'image-'))
        const boot = path.join(folder, 'boot')
        const programs = { ours, peer }
        execFileSync(programs[builder].image, ['create', '--log-level', 'warn', '--bootstrap', boot, '--blob-dir', folder, ...options, source])
        execFileSync(programs[reader].image, ['check', '--log-level', 'warn', '--bootstrap', boot])
        const { mountpoint, stop } = await mounted(programs[reader].nydusd, boot, folder)
        expect(listing(mountpoint)).toBe(listing(source))
        await stop()
      })
    }
  }
})

describe('unpack by upstream\'s nydus-image', () => {
  // no batches: from those it writes a corrupt tar, whoever made them
  it.each(OPTIONS.filter((options) => !options.includes('--batch-size')))('writes our image out as its source (%s %s)', (...options: readonly string[]) => {
    const folder = fs.mkdtempSync(path.join(work, 'unpack-'))
    const [boot, blobs, tar, out] = ['boot', 'blobs', 'out.tar', 'out'].map((name) => path.join(folder, name)) as [string, string, string, string]
    fs.mkdirSync(blobs)
    fs.mkdirSync(out)
    const tree = path.join(ROOT, 'src') // no special files: at those it panics
    execFileSync(ours.image, ['create', '--log-level', 'warn', '--bootstrap', boot, '--blob-dir', blobs, ...options, tree])
    execFileSync(peer.image, ['unpack', '--log-level', 'warn', '--bootstrap', boot, '--blob', path.join(blobs, fs.readdirSync(blobs)[0]!), '--output', tar])
    execFileSync('tar', ['-xf', tar, '-C', out])
    expect(listing(out)).toBe(listing(tree))
  })
})

describe.skipIf(!peer.nydusify)('nydusify of both sides', () => {
  let host: string
  let nydusd: string

  beforeAll(async () => {
    const layout = path.join(work, 'layout')
    execFileSync('bash', ['-c', 'cp -a "$2" "$3" && find "$3" -type s -delete && umoci init --layout "$1" && umoci new --image "$1:src" && umoci insert --image "$1:src" "$3" /', '-', layout, path.join(source, '../small'), path.join(work, 'tree')]) // a tar has no sockets
    // COMPAT: upstream's nydusd exits where the hard limit of open files cannot be raised, and nydusify does not pass the option that prevents it.
    nydusd = path.join(work, 'nydusd')
    fs.writeFileSync(nydusd, `#!/bin/sh\nexec ${peer.nydusd} --rlimit-nofile 0 "$@"\n`, { mode: 0o755 })
    const child = spawn(ours.nydusify, ['serve', `oci:${path.join(work, 'registry')}`, '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'ignore'] })
    children.push(child)
    host = await new Promise((resolve) => child.stdout!.on('data', (data) => { const found = /127\.0\.0\.1:\d+/.exec(String(data)); if (found) resolve(found[0]) }))
    execFileSync('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:src`, `docker://${host}/peer/image:src`], { stdio: 'ignore' })
  })

  it('the Go nydusify converts and checks with our nydus-image and nydusd', () => {
    const target = `${host}/peer/image:go`
    for (const argv of [
      ['convert', '--source', `${host}/peer/image:src`, '--target', target, '--plain-http', '--nydus-image', ours.image, '--work-dir', path.join(work, 'go-convert')],
      ['check', '--source', `${host}/peer/image:src`, '--target', target, '--source-insecure', '--target-insecure', '--nydus-image', ours.image, '--nydusd', ours.nydusd, '--work-dir', path.join(work, 'go-check')],
    ]) {
      const { status, stdout, stderr } = spawnSync(peer.nydusify!, argv, { encoding: 'utf8' })
      expect(status, stdout + stderr).toBe(0)
    }
  })

  it('what our nydusify converts passes the Go nydusify\'s check with upstream\'s programs', () => {
    const target = `${host}/peer/image:ours`
    const converted = spawnSync(ours.nydusify, ['convert', '--source', `${host}/peer/image:src`, '--target', target, '--plain-http', '--work-dir', path.join(work, 'our-convert')], { encoding: 'utf8' })
    expect(converted.status, converted.stdout + converted.stderr).toBe(0)
    const checked = spawnSync(peer.nydusify!, ['check', '--source', `${host}/peer/image:src`, '--target', target, '--source-insecure', '--target-insecure',
      '--nydus-image', peer.image, '--nydusd', nydusd, '--work-dir', path.join(work, 'peer-check')], { encoding: 'utf8' })
    expect(checked.status, checked.stdout + checked.stderr).toBe(0)
  })

  it('each side uses the build cache that the other wrote', () => {
    // from GNU tar: upstream's builder does not read what umoci packs. In one repository: it looks for sources of cached layers beside them.
    const maker = new LayoutMaker(path.join(work, 'cached'))
    maker.name(maker.image(['build', 'core'].map((name) => gnuTarLayer(path.join(ROOT, 'src', name)))), 'src')
    const image = (tag: string) => `${host.replace('127.0.0.1', 'localhost')}/peer/cached:${tag}`
    execFileSync('skopeo', ['copy', '--dest-tls-verify=false', `oci:${path.join(work, 'cached')}:src`, `docker://${image('src')}`], { stdio: 'ignore' })
    const convert = (side: 'ours' | 'peer', target: string, cache: string) => {
      const argv = ['convert', '--source', image('src'), '--target', image(target), '--plain-http', '--build-cache', image(cache), '--work-dir', path.join(work, `w-${target}`)]
      const { status, stdout, stderr } = side === 'ours' ? spawnSync(ours.nydusify, argv, { encoding: 'utf8' }) : spawnSync(peer.nydusify!, [...argv, '--nydus-image', peer.image], { encoding: 'utf8' })
      expect(status, stdout + stderr).toBe(0)
      return stdout + stderr
    }
    for (const [writer, reader] of [['ours', 'peer'], ['peer', 'ours']] as const) {
      const cache = `cache-${writer}`
      convert(writer, `${writer}-1`, cache)
      const said = convert(reader, `${reader}-2`, cache)
      if (reader === 'peer') expect(said).toContain('cached 2/2')
      else expect(said.match(/layer sha256:\S+ reused/g), said).toHaveLength(2)
      // what the reader wrote back is a cache for both again
      expect(convert('peer', `${writer}-3`, cache)).toContain('cached 2/2')
      expect(convert('ours', `${writer}-4`, cache).match(/layer sha256:\S+ reused/g)).toHaveLength(2)
    }
  })
})

function gnuTarLayer(directory: string): TestLayer {
  const tar = execFileSync('tar', ['--sort=name', '-cf', '-', '-C', directory, '.'], { maxBuffer: 64 * 2 ** 20 })
  return { bytes: gzipSync(tar), diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayerGzip }
}

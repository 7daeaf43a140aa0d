// `nydusify mount`, and independent readers of what convert made: umoci, the kernel's EROFS.

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { convert, mount, serveLayout } from '../../src/index.ts'
import { scanDirectory, type TreeEntry } from '../support/expect.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { LayoutMaker, named, readJson } from './make-image.ts'
import { sampleLayers, sampleLayout } from './sample.ts'
import { nydusify, ROOT, startNydusify, temporary, until } from './support.ts'

const isMounted = (directory: string) => fs.readFileSync('/proc/self/mounts', 'utf8').includes(` ${directory} `)

function childrenOf(pid: number): number[] {
  return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
}

describe('nydusify mount', () => {
  it('mounts lazily, and Ctrl-C takes everything away again', async () => {
    using work = temporary('mount')
    sampleLayout(work.at('source'))
    await using server = await serveLayout(work.at('source'))
    await convert({ source: `${server.host}/${server.repository}:sample`, target: `${server.host}/app:n`, sourceRegistry: { plainHttp: true }, targetRegistry: { plainHttp: true }, workDirectory: work.at('w') })
    const mountpoint = work.at('mnt')
    await using job = startNydusify(['view', '--target', `${server.host}/app:n`, '--target-insecure', '--mount-path', mountpoint, '--work-dir', work.at('m')])
    await until('the mount', () => job.text().includes('mounted'))
    expect(isMounted(mountpoint)).toBe(true)
    const before = server.log.length
    // the registry is in this process: whoever reads must not keep it from answering
    expect(await fs.promises.readFile(path.join(mountpoint, 'change'), 'utf8')).toBe('now a file')
    expect(server.log.slice(before).some(({ range }) => range !== undefined)).toBe(true)
    job.child.kill('SIGINT')
    const { code } = await job.ended
    expect(code).toBe(0) // being ended is how it ends
    expect(isMounted(mountpoint)).toBe(false)
    expect(fs.existsSync(work.at('m'))).toBe(false)
  })

  it('ends by itself when somebody else unmounts', async () => {
    using work = temporary('umount')
    sampleLayout(work.at('source'))
    await convert({ source: `oci:${work.at('source')}:sample`, target: `oci:${work.at('target')}:n`, workDirectory: work.at('w') })
    await using job = startNydusify(['mount', '--target', `oci:${work.at('target')}:n`, '--mount-path', work.at('mnt'), '--work-dir', work.at('m')])
    await until('the mount', () => job.text().includes('mounted'))
    execFileSync('umount', [work.at('mnt')])
    expect((await job.ended).code).toBe(0)
  })

  /** Whether the daemon of a killed nydusify is gone soon, with its mount. */
  async function endsWithOwner(work: ReturnType<typeof temporary>, nydusd: readonly string[]): Promise<boolean> {
    sampleLayout(work.at('source'))
    await convert({ source: `oci:${work.at('source')}:sample`, target: `oci:${work.at('target')}:n`, workDirectory: work.at('w') })
    await using job = startNydusify(['mount', '--target', `oci:${work.at('target')}:n`, '--mount-path', work.at('mnt'), '--work-dir', work.at('m'), ...nydusd])
    await until('the mount', () => job.text().includes('mounted'))
    const [daemon] = childrenOf(job.child.pid!)
    job.child.kill('SIGKILL')
    const isGone = await until('the end of the daemon', () => !isMounted(work.at('mnt')), 3000).then(() => true, () => false)
    if (!isGone) process.kill(daemon!, 'SIGTERM')
    await until('the end of the daemon', () => !fs.existsSync(`/proc/${daemon}`))
    expect(isMounted(work.at('mnt'))).toBe(false)
    return isGone
  }

  it('killed with -9, takes its daemon and the mount with it', async () => {
    using work = temporary('orphan')
    expect(await endsWithOwner(work, [])).toBe(true)
  })

  it('would leave a daemon that is not told of its owner', async () => {
    using work = temporary('orphan')
    fs.writeFileSync(work.at('nydusd'), `#!/bin/sh\nunset NYDUSD_OWNER_FD\nexec ${path.join(ROOT, 'bin/nydusd')} "$@"\n`, { mode: 0o755 })
    expect(await endsWithOwner(work, ['--nydusd', work.at('nydusd')])).toBe(false)
  })

  it('refuses what is no Nydus image, and leaves nothing', () => {
    using work = temporary('nomount')
    sampleLayout(work.at('source'))
    const { code, stderr } = nydusify(['mount', '--target', `oci:${work.at('source')}:sample`, '--mount-path', work.at('mnt'), '--work-dir', work.at('m')])
    expect(code).toBe(1)
    expect(stderr).toContain('is not a Nydus image')
    expect(fs.existsSync(work.at('m'))).toBe(false)
  })
})

describe('independent readers', () => {
  // umoci refuses links to other layers' files; times of directories that it makes itself are those of the unpacking
  const layers = () => sampleLayers({ foreignLink: false })
  const comparable = (entries: readonly TreeEntry[]) => entries
    .filter(({ path: where }) => where !== '/' && !/^\/etc(\/made(\/by)?)?$/.test(where))
    .map(({ ...entry }) => ({ ...entry, ...(entry.type === 'dir' ? { size: undefined } : {}), nlink: undefined }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))

  it('umoci unpacks the same tree from the source as FUSE and the kernel show of the target', async () => {
    using work = temporary('peers')
    const maker = new LayoutMaker(work.at('source'))
    maker.name(maker.image(layers()), 'x')
    execFileSync('umoci', ['unpack', '--image', `${work.at('source')}:x`, work.at('bundle')], { stdio: 'pipe' })
    const expected = comparable(scanDirectory(work.at('bundle/rootfs')))
    await convert({ source: `oci:${work.at('source')}:x`, target: `oci:${work.at('target')}:n`, compressor: 'none', batchSize: 0, workDirectory: work.at('w') })
    {
      await using mounted = await mount({ image: `oci:${work.at('target')}:n`, mountpoint: work.at('mnt'), workDirectory: work.at('m') })
      expect(comparable(scanDirectory(mounted.mountpoint))).toEqual(expected)
      // the cache has every chunk now, decompressed and where EROFS looks for it
      fs.cpSync(work.at('m/cache'), work.at('devices'), { recursive: true })
    }
    expect(isMounted(work.at('mnt'))).toBe(false)
    const { bootstrap, devices } = erofsImage(work)
    const { status, stdout, stderr } = spawnSync('fsck.erofs', [...devices.map((device) => `--device=${device}`), bootstrap], { encoding: 'utf8' })
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' })
    mountErofs(work, (root) => expect(comparable(scanDirectory(root))).toEqual(expected))
  })
})

/** The bootstrap, and for each blob that has data its cache file, in the order of the device table. */
function erofsImage(work: ReturnType<typeof temporary>): { bootstrap: string; devices: string[] } {
  const manifest = readJson(work.at('target'), named(work.at('target'), 'n').digest)
  fs.mkdirSync(work.at('boot'), { recursive: true })
  execFileSync('tar', ['-xzf', work.at('target/blobs/sha256', manifest.layers.at(-1)!.digest.slice(7)), '-C', work.at('boot')])
  const bootstrap = work.at('boot/image/image.boot')
  const devices = BootstrapView.open(fs.readFileSync(bootstrap)).blobs.map(({ blobId }) => work.at('devices', `${blobId}.blob.data`))
  return { bootstrap, devices }
}

/** The kernel's own driver over bootstrap and devices. */
function mountErofs(work: ReturnType<typeof temporary>, look: (root: string) => void): void {
  const { bootstrap, devices } = erofsImage(work)
  const loops: string[] = []
  const root = work.at('erofs')
  fs.mkdirSync(root)
  try {
    for (const file of [bootstrap, ...devices]) loops.push(execFileSync('losetup', ['-fr', '--show', file], { encoding: 'utf8' }).trim())
    execFileSync('mount', ['-t', 'erofs', '-o', `ro,${loops.slice(1).map((device) => `device=${device}`).join(',')}`, loops[0]!, root])
    look(root)
  } finally {
    spawnSync('umount', [root])
    for (const loop of loops) spawnSync('losetup', ['-d', loop])
  }
}

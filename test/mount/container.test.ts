// A container as users run it: an OCI bundle whose root is an overlay over our mount, its files fetched lazily from a real registry, started by runc.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { startDockerRegistry } from '../support/docker-registry.ts'
import { eventually, pause, Scratch } from '../support/nydusd.ts'
import { Supervised } from '../support/storm.ts'

const NYDUS_IMAGE = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const FIRST_ID = 100_000
/** What the container does all the time: compares all files with their digests. It ends with 9 when one differs. */
const WORK = 'echo ready >/ready; while [ ! -e /stop ]; do sha256sum --quiet -c /sums || exit 9; echo 3 >/dev/null; done; stat -c %u:%g /data/file-0 >/owner; echo done >/result'

/** A root file system with a shell and some data, of programs of this machine. */
function rootTree(source: string): void {
  const put = (file: string, target = file): void => {
    mkdirSync(path.dirname(path.join(source, target)), { recursive: true })
    copyFileSync(realpathSync(file), path.join(source, target))
    chmodSync(path.join(source, target), 0o755)
  }
  for (const program of ['/bin/sh', '/usr/bin/sha256sum', '/usr/bin/stat']) {
    put(program, path.join('/bin', path.basename(program)))
    for (const library of execFileSync('ldd', [program], { encoding: 'utf8' }).match(/\/[^ )]+/g) ?? []) put(library)
  }
  for (const name of ['proc', 'dev', 'sys', 'tmp', 'data']) mkdirSync(path.join(source, name), { recursive: true })
  for (let i = 0; i < 20; i++) writeFileSync(path.join(source, 'data', `file-${i}`), randomBytes(50_000 + i * 9000))
  writeFileSync(path.join(source, 'sums'), execFileSync('sh', ['-c', 'sha256sum data/*'], { cwd: source }))
}

/** Builds the image of `source`, pushes its blob to the registry at `host`, and gives the arguments of a nydusd that fetches lazily. */
async function publish(scratch: Scratch, source: string, host: string): Promise<string[]> {
  const blobs = path.join(scratch.path, 'blobs')
  mkdirSync(blobs)
  const boot = path.join(scratch.path, 'boot')
  execFileSync(NYDUS_IMAGE, ['create', '-l', 'warn', '-B', boot, '-D', blobs, '--chunk-size', '0x10000', source])
  for (const id of readdirSync(blobs)) {
    const started = await fetch(`http://${host}/v2/app/blobs/uploads/`, { method: 'POST' })
    const where = new URL(started.headers.get('location')!, `http://${host}`)
    where.searchParams.set('digest', `sha256:${id}`)
    expect((await fetch(where, { method: 'PUT', body: readFileSync(path.join(blobs, id)), headers: { 'content-type': 'application/octet-stream' } })).status).toBe(201)
  }
  const config = path.join(scratch.path, 'config.json')
  writeFileSync(config, JSON.stringify({
    version: 2, backend: { type: 'registry', registry: { scheme: 'http', host, repo: 'app' } }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
  }))
  return ['--bootstrap', boot, '--config', config]
}

/** Starts WORK in a container with the root `root`. */
function runContainer(scratch: Scratch, root: string, { id, userNamespace }: { readonly id: string; readonly userNamespace: boolean }): ChildProcess {
  const map = [{ containerID: 0, hostID: FIRST_ID, size: 65536 }]
  const bundle = path.join(scratch.path, id)
  mkdirSync(bundle)
  writeFileSync(path.join(bundle, 'config.json'), JSON.stringify({
    ociVersion: '1.0.2',
    process: { terminal: false, user: { uid: 0, gid: 0 }, args: ['/bin/sh', '-c', WORK], env: ['PATH=/bin'], cwd: '/' },
    root: { path: root, readonly: false },
    mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }, { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] }],
    linux: {
      namespaces: ['pid', 'mount', 'ipc', 'uts', ...(userNamespace ? ['user'] : [])].map((type) => ({ type })),
      ...(userNamespace && { uidMappings: map, gidMappings: map }),
    },
  }))
  return spawn('runc', ['--root', path.join(scratch.path, 'runc'), 'run', '--bundle', bundle, id], { stdio: ['ignore', 'inherit', 'inherit'] })
}

describe('a container over a mounted image', () => {
  it.each([['as root', false], ['in a user name space, through an idmapped mount', true]] as const)('runs %s, lazily from a registry, while its daemon is killed and upgraded', async (_what, userNamespace) => {
    using scratch = new Scratch()
    await using registry = await startDockerRegistry(path.join(scratch.path, 'registry'))
    const source = path.join(scratch.path, 'source')
    rootTree(source)
    await using supervised = await Supervised.start(scratch, await publish(scratch, source, registry.host))
    const mounted: string[] = []
    const place = (name: string): string => {
      mkdirSync(path.join(scratch.path, name))
      return path.join(scratch.path, name)
    }
    const storage = place('storage')
    mkdirSync(path.join(storage, 'upper'))
    mkdirSync(path.join(storage, 'work'))
    let lower = scratch.mountpoint
    const root = place('root')
    let container: ChildProcess | undefined
    const id = `nydus-${process.pid}-${userNamespace ? 'user' : 'root'}`
    try {
      if (userNamespace) {
        lower = place('lower')
        execFileSync('python3', [path.resolve(import.meta.dirname, '../support/idmap.py'), scratch.mountpoint, lower, String(FIRST_ID), '65536'])
        mounted.push(lower)
        chownSync(path.join(storage, 'upper'), FIRST_ID, FIRST_ID) // two empty directories, as a snapshotter makes them
        chownSync(path.join(storage, 'work'), FIRST_ID, FIRST_ID)
        chmodSync(scratch.path, 0o755) // the container's root is nobody here
      }
      execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=${lower},upperdir=${storage}/upper,workdir=${storage}/work`, root])
      mounted.push(root)
      container = runContainer(scratch, root, { id, userNamespace })
      const ended = new Promise<number | null>((resolve) => container?.once('exit', resolve))
      await eventually(() => existsSync(path.join(root, 'ready')), 'the container runs')
      for (let round = 0; round < 2; round++) {
        await pause(200)
        await supervised.failover()
        await pause(200)
        await supervised.upgrade()
      }
      await pause(200)
      expect(container.exitCode).toBeNull()
      writeFileSync(path.join(root, 'stop'), '')
      expect(await ended).toBe(0)
      expect(readFileSync(path.join(root, 'result'), 'utf8')).toBe('done\n')
      expect(readFileSync(path.join(root, 'owner'), 'utf8')).toBe('0:0\n')
      // nothing was copied up or chowned: what the container wrote, and the mount points that runc made
      expect(readdirSync(path.join(storage, 'upper')).filter((name) => !['dev', 'proc', 'sys'].includes(name)).sort()).toEqual(['owner', 'ready', 'result', 'stop'])
    } finally {
      try { execFileSync('runc', ['--root', path.join(scratch.path, 'runc'), 'delete', '--force', id], { stdio: 'ignore' }) } catch { /* it has ended and is gone */ }
      container?.kill('SIGKILL')
      for (const one of mounted.reverse()) execFileSync('umount', ['-l', one])
    }
  })
})

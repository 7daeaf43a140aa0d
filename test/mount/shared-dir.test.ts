// nydusd --shared-dir: a directory of the host through FUSE. What is done in the mount is compared with the same done in an ordinary directory.

import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { eventually, pause, type RunningDaemon, runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'
import { killServer } from '../support/self-heal.ts'
import { VECTORS } from '../support/expect.ts'

const OPERATIONS = path.resolve(import.meta.dirname, '../support/operations.py')
const run = promisify(execFile)
const KILLS = Number(process.env['STORM_ROUNDS'] ?? 4)

/** A scratch with `shared` in it, served read-write on `mnt`. */
async function shared(scratch: Scratch, args: readonly string[] = ['--writable']): Promise<{ readonly daemon: RunningDaemon; readonly host: string; readonly mount: string }> {
  const host = path.join(scratch.path, 'shared')
  mkdirSync(host)
  return { daemon: await startNydusd(scratch, ['--shared-dir', host, ...args]), host, mount: scratch.mountpoint }
}

const outcome = (use: () => unknown): unknown => {
  try {
    return use()
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code !== undefined ? error.code : error
  }
}

describe.runIf(requires.root)('a shared directory', () => {
  it('does what a directory does, whatever is asked of it', async () => {
    using scratch = new Scratch()
    const { daemon, host, mount } = await shared(scratch)
    await using _daemon = daemon
    const reached = new Map<string, number>()
    for (const seed of [Number(process.env['PROPERTY_SEED'] ?? Date.now() % 1e6), 7]) {
      const plain = path.join(scratch.path, `plain-${seed}`)
      for (const directory of [path.join(host, `${seed}`), plain]) mkdirSync(directory)
      const { stdout } = await run('python3', [OPERATIONS, path.join(mount, `${seed}`), plain, String(seed), process.env['NYDUS_OPERATIONS'] ?? '1000']).catch((error: { stdout: string }) => { throw new Error(error.stdout) })
      // SAFETY: operations.py prints this.
      const { succeeded } = JSON.parse(stdout) as { readonly succeeded: Record<string, number> }
      for (const [name, count] of Object.entries(succeeded)) reached.set(name, (reached.get(name) ?? 0) + count)
    }
    expect(reached.size).toBeGreaterThanOrEqual(33)
  })

  it('goes on, without doing anything twice, when its server is killed in the middle of it', async () => {
    using scratch = new Scratch()
    const { daemon, host, mount } = await shared(scratch, ['--writable', '--self-heal', '--run-dir', path.join(scratch.path, 'run')])
    await using _daemon = daemon
    const plain = path.join(scratch.path, 'plain')
    for (const directory of [path.join(host, 'killed'), plain]) mkdirSync(directory)
    const working = run('python3', [OPERATIONS, path.join(mount, 'killed'), plain, process.env['PROPERTY_SEED'] ?? String(Date.now() % 1e6), String(KILLS * 400)], { env: { ...process.env, OPERATIONS_HELD: 'apart' } })
    let isDone = false
    const result = working.then(({ stdout }) => stdout, (error: { stdout: string }) => error.stdout).finally(() => { isDone = true })
    let kills = 0
    for (; !isDone && kills < KILLS; kills++) {
      await pause(50 + Math.random() * 200)
      await killServer(daemon)
    }
    expect(JSON.parse(await result)).toMatchObject({ files: expect.any(Number) })
    expect(kills).toBe(KILLS)
    const records = (): string[] => readdirSync(path.join(scratch.path, 'run')).filter((name) => name.startsWith('shared-'))
    expect(records().length).toBe(2)
    daemon.child.kill('SIGTERM')
    await daemon.ended
    expect(records()).toEqual([])
  })

  it('makes files in the name of who asks, with his umask or what the directory says instead', async () => {
    using scratch = new Scratch()
    const { daemon, host, mount } = await shared(scratch)
    await using _daemon = daemon
    for (const directory of ['open', 'group', 'acl']) mkdirSync(path.join(host, directory))
    for (const directory of ['open', 'group', 'acl']) chmodSync(path.join(host, directory), directory === 'group' ? 0o2777 : 0o777)
    execFileSync('chgrp', ['77', path.join(host, 'group')])
    chmodSync(path.join(host, 'group'), 0o2777)
    // default ACL: user::rwx, user:5:rwx, group::rwx, mask::rwx, other::rwx. SPEC: linux posix_acl_xattr.h
    const acl = '0200000001000700ffffffff020007000500000004000700ffffffff10000700ffffffff20000700ffffffff'
    execFileSync('python3', ['-c', `import os,sys; os.setxattr(sys.argv[1], 'system.posix_acl_default', bytes.fromhex('${acl}'))`, path.join(mount, 'acl')])
    execFileSync('setpriv', ['--reuid', '1234', '--regid', '2345', '--groups', '77', 'sh', '-c', 'umask 027; for d in open group acl; do echo x >$d/file; mkdir $d/dir; mkfifo $d/fifo; ln -s x $d/link; done'], { cwd: mount })
    const shown = (name: string): unknown[] => {
      const { uid, gid, mode } = lstatSync(path.join(host, name))
      return [name, uid, gid, (mode & 0o7777).toString(8)]
    }
    expect(['open', 'group', 'acl'].flatMap((directory) => ['file', 'dir', 'fifo', 'link'].map((name) => shown(`${directory}/${name}`)))).toEqual([
      ['open/file', 1234, 2345, '640'], ['open/dir', 1234, 2345, '750'], ['open/fifo', 1234, 2345, '640'], ['open/link', 1234, 2345, '777'],
      ['group/file', 1234, 77, '640'], ['group/dir', 1234, 77, '2750'], ['group/fifo', 1234, 77, '640'], ['group/link', 1234, 77, '777'],
      ['acl/file', 1234, 2345, '666'], ['acl/dir', 1234, 2345, '777'], ['acl/fifo', 1234, 2345, '666'], ['acl/link', 1234, 2345, '777'],
    ])
    // and nothing that its owner does not allow
    writeFileSync(path.join(host, 'private'), 'x', { mode: 0o600 })
    expect(outcome(() => execFileSync('setpriv', ['--reuid', '1234', '--clear-groups', 'cat', 'private'], { cwd: mount, stdio: 'ignore' }))).toBeInstanceOf(Error)
    expect(existsSync(path.join(host, 'private'))).toBe(true)
  })

  it('shows what the host changes, keeps what is open, and few descriptors', async () => {
    using scratch = new Scratch()
    const { daemon, host, mount } = await shared(scratch)
    await using _daemon = daemon
    const names = Array.from({ length: 1500 }, (_, i) => `file-${i}`)
    for (const name of names) writeFileSync(path.join(host, name), name)
    expect(readdirSync(mount).sort()).toEqual([...names].sort())
    for (const name of names) expect(statSync(path.join(mount, name)).size).toBe(name.length)
    expect(readdirSync(`/proc/${daemon.pid}/fd`).length).toBeLessThan(1200)
    writeFileSync(path.join(host, 'file-0'), 'changed')
    renameSync(path.join(host, 'file-1'), path.join(host, 'renamed'))
    rmSync(path.join(host, 'file-2'))
    await eventually(() => readFileSync(path.join(mount, 'file-0'), 'utf8') === 'changed' && !existsSync(path.join(mount, 'file-1')) && !existsSync(path.join(mount, 'file-2')), 'the mount shows the change')
    expect(readFileSync(path.join(mount, 'renamed'), 'utf8')).toBe('file-1')
    const open = execFileSync('python3', ['-c', [
      'import os,sys', 'a, b = sys.argv[1:]', 'fd = os.open(a + "/file-3", os.O_RDWR)', 'os.unlink(b + "/file-3")', 'os.pwrite(fd, b"still", 0)', 'print(os.pread(fd, 5, 0), os.fstat(fd).st_nlink)',
    ].join('\n'), mount, host], { encoding: 'utf8' })
    expect(open).toBe("b'still' 0\n")
    execFileSync('truncate', ['-s', '1M', path.join(host, 'sparse')])
    execFileSync('dd', ['if=/dev/zero', `of=${path.join(host, 'sparse')}`, 'bs=64K', 'count=1', 'seek=4', 'conv=notrunc,fsync'], { stdio: 'ignore' })
    const ranges = execFileSync('python3', ['-c', 'import os,sys; fd = os.open(sys.argv[1], 0); print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 262144, os.SEEK_HOLE))', path.join(mount, 'sparse')], { encoding: 'utf8' })
    expect(ranges).toBe('262144 327680\n')
  })

  it('is read-only unless --writable, and refused when it is no directory', async () => {
    using scratch = new Scratch()
    const { daemon, host, mount } = await shared(scratch, [])
    await using _daemon = daemon
    writeFileSync(path.join(host, 'file'), 'bytes')
    expect(readFileSync(path.join(mount, 'file'), 'utf8')).toBe('bytes')
    expect(outcome(() => writeFileSync(path.join(mount, 'other'), ''))).toBe('EROFS')
    using other = new Scratch()
    for (const nothing of [path.join(host, 'file'), path.join(host, 'nothing')]) {
      const { status, stderr } = await runNydusd(['--mountpoint', other.mountpoint, '--shared-dir', nothing])
      expect([status, stderr]).toEqual([1, expect.stringContaining('cannot share')])
    }
    expect(other.isMounted()).toBe(false)
  })

  it('is mounted and unmounted by the API, beside images', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--writable'])
    const host = path.join(scratch.path, 'host')
    mkdirSync(path.join(host, 'sub'), { recursive: true })
    const mount = (mountpoint: string, body: object): Promise<{ status: number; body: unknown }> => daemon.ask('POST', `/api/v1/mount?mountpoint=${mountpoint}`, JSON.stringify(body))
    const share = { fs_type: 'passthrough_fs', source: host, config: '' }
    expect(await mount('/containers', share)).toMatchObject({ status: 204 })
    expect(await mount('/containers', share)).toMatchObject({ status: 204 })
    expect(await mount('/rafs/one/lowerdir', { fs_type: 'rafs', source: path.join(VECTORS, 'v6-small-zstd', 'image.boot'), config: readFileSync(scratch.config(), 'utf8') })).toMatchObject({ status: 204 })
    const at = (...names: string[]): string => path.join(scratch.mountpoint, ...names)
    writeFileSync(at('containers', 'sub', 'file'), 'through')
    expect(readFileSync(path.join(host, 'sub', 'file'), 'utf8')).toBe('through')
    expect(readdirSync(scratch.mountpoint).sort()).toEqual(['containers', 'rafs'])
    expect(readdirSync(at('rafs', 'one', 'lowerdir')).length).toBeGreaterThan(3)
    expect(outcome(() => writeFileSync(at('rafs', 'one', 'lowerdir', 'new'), ''))).toBe('EROFS')
    expect(outcome(() => renameSync(at('containers', 'sub', 'file'), at('rafs', 'one', 'lowerdir', 'file')))).toBe('EXDEV')
    const info = await daemon.ask('GET', '/api/v1/daemon')
    expect(info.body).toMatchObject({ backend_collection: { '/containers': { backend_type: 'PassthroughFs', mountpoint: '/containers', config: {} } } })
    expect(await daemon.ask('DELETE', '/api/v1/mount?mountpoint=/containers')).toMatchObject({ status: 204 })
    expect(readdirSync(scratch.mountpoint)).toEqual(['rafs'])
    expect(readdirSync(`/proc/${daemon.pid}/fd`).length).toBeLessThan(60)
    expect(await mount('/again', share)).toMatchObject({ status: 204 })
    expect(readFileSync(at('again', 'sub', 'file'), 'utf8')).toBe('through')
  })
})

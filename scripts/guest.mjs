#!/usr/bin/env node
// Makes what a virtual machine of the tests boots: Debian's 6.12 cloud kernel as an ELF file (virtiofs built in) and an initramfs of busybox with the
// modules for overlay, EROFS and dm-verity. Into .cache/guest, once. Needs apt-get, zstd, xz, cpio and busybox-static (scripts/setup.sh test).
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const META = 'linux-image-6.12-cloud-amd64'
/** Insertion order follows from each module's own list of what it depends on. */
const MODULES = ['overlay', 'erofs', 'loop', 'dm-verity', 'virtio_blk', 'sha256_generic']
const APPLETS = ['sh', 'mount', 'umount', 'cat', 'ls', 'insmod', 'poweroff', 'reboot', 'echo', 'sleep', 'mkdir', 'find', 'sort', 'head', 'stat', 'readlink', 'dd', 'sha256sum', 'cut', 'grep', 'chroot', 'switch_root', 'touch', 'rm', 'mv', 'cp', 'ln', 'test', 'true', 'wc', 'tr', 'seq', 'uname', 'dmesg', 'mknod', 'base64', 'date', 'xargs', 'sync', 'env']

const root = path.resolve(import.meta.dirname, '..')
const target = path.join(root, '.cache/guest')

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { maxBuffer: 2 ** 28, ...options })
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.error?.message ?? `exit ${result.status} ${result.stderr ?? ''}`}`)
  return result.stdout
}

/** The payload of a bzImage is a compressed ELF file. SPEC: linux Documentation/arch/x86/boot.rst, payload_offset and payload_length. */
function extractKernel(image) {
  const setupSectors = image[0x1f1] || 4
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248)
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c))
  // the last four bytes are the size of the decompressed kernel
  const elf = run('zstd', ['-dcq'], { input: payload.subarray(0, payload.length - 4) })
  if (elf.readUInt32BE(0) !== 0x7f454c46) throw new Error('the kernel is not an ELF file compressed with zstd')
  return elf
}

function findModules(directory) {
  const found = new Map()
  for (const file of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const name = /([^/]+)\.ko(\.xz)?$/.exec(file)?.[1]
    if (name !== undefined) found.set(name.replaceAll('-', '_'), path.join(directory, file))
  }
  return found
}

function loadOrder(modules) {
  const order = new Map()
  const visit = (name) => {
    const key = name.replaceAll('-', '_')
    const file = modules.get(key)
    if (file === undefined || order.has(key)) return // built in, or there already
    const bytes = file.endsWith('.xz') ? run('xz', ['-dc', file]) : readFileSync(file)
    const depends = /\0depends=([^\0]*)\0/.exec(bytes.toString('latin1'))?.[1] ?? ''
    for (const other of depends.split(',').filter(Boolean)) visit(other)
    order.set(key, bytes)
  }
  MODULES.forEach(visit)
  return order
}

if (existsSync(path.join(target, 'complete'))) process.exit(0)
const work = mkdtempSync(path.join(tmpdir(), 'nydus-guest-'))
try {
  const depends = () => /Depends: (linux-image-\S+)/.exec(String(spawnSync('apt-cache', ['depends', META]).stdout))?.[1]
  let name = depends()
  if (name === undefined) {
    run('apt-get', ['update'])
    name = depends()
  }
  if (name === undefined) throw new Error(`apt knows no ${META}`)
  try {
    run('apt-get', ['download', name], { cwd: work })
  } catch {
    run('apt-get', ['update']) // the list may name a version that is gone
    run('apt-get', ['download', depends() ?? name], { cwd: work })
  }
  run('dpkg', ['-x', readdirSync(work).find((file) => file.endsWith('.deb')), 'x'], { cwd: work })
  const boot = path.join(work, 'x/boot')
  const kernel = extractKernel(readFileSync(path.join(boot, readdirSync(boot).find((file) => file.startsWith('vmlinuz')))))
  const modules = loadOrder(findModules(path.join(work, 'x/lib/modules')))

  const initramfs = path.join(work, 'initramfs')
  for (const directory of ['bin', 'proc', 'sys', 'dev', 'mnt', 'run', 'tmp', 'new', 'modules']) mkdirSync(path.join(initramfs, directory), { recursive: true })
  copyFileSync('/bin/busybox', path.join(initramfs, 'bin/busybox'))
  for (const applet of APPLETS) symlinkSync('busybox', path.join(initramfs, 'bin', applet))
  for (const [module, bytes] of modules) writeFileSync(path.join(initramfs, 'modules', `${module}.ko`), bytes)
  // The test's script comes in a second archive, behind this one (the kernel unpacks both).
  writeFileSync(path.join(initramfs, 'init'), `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in ${[...modules.keys()].join(' ')}; do insmod /modules/$module.ko || echo "GUEST: $module is not loaded"; done
sh /script; echo "GUEST: exit $?"
sync; poweroff -f
`)
  chmodSync(path.join(initramfs, 'init'), 0o755)
  mkdirSync(target, { recursive: true })
  const archive = run('sh', ['-c', 'find . | cpio -o -H newc --quiet -R 0:0'], { cwd: initramfs })
  for (const [file, bytes] of [['vmlinux', kernel], ['initramfs', archive], ['complete', name]]) {
    writeFileSync(path.join(target, `${file}.${process.pid}`), bytes)
    renameSync(path.join(target, `${file}.${process.pid}`), path.join(target, file))
  }
  process.stderr.write(`guest: ${name}, modules ${[...modules.keys()].join(' ')}\n`)
} catch (error) {
  process.stderr.write(`guest: ${error.message}\n`)
  process.exitCode = 1
} finally {
  rmSync(work, { recursive: true, force: true })
}

// nydusd virtiofs --shared-dir with a front end of our own: what a machine may do with a directory of the host, and what a hostile one tries.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import { FUZZ_TIMEOUT, fuzz } from '../support/fuzz-run.ts'
import { ENOENT, lookup, type Node, ROOT } from '../support/guest-files.ts'
import { create, forget, mknod, open, readOpen, release, truncate, withName, writeOpen } from '../support/guest-operations.ts'
import { eventually, pause, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'
import { TestFrontEnd } from '../support/vhost-front-end.ts'

const { EBADF, EINVAL, ENFILE, ENXIO, ESTALE } = constants.errno
const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusd')
const SECRET = 'what the machine must not see'

interface Shared { readonly daemon: RunningDaemon; readonly host: string; readonly outside: string; readonly socket: string }

/** `host` is shared; `outside`, beside it, is not. */
async function start(scratch: Scratch, limit?: number): Promise<Shared> {
  const [host, outside, socket] = ['host', 'outside', 'fs.sock'].map((name) => path.join(scratch.path, name)) as [string, string, string]
  for (const directory of [host, outside]) mkdirSync(directory)
  writeFileSync(path.join(outside, 'file'), SECRET)
  const limited = limit === undefined ? {} : { program: 'prlimit' }
  const where = [...limit === undefined ? [] : [`--nofile=${limit}:${limit}`, PROGRAM], 'virtiofs', '--sock', socket]
  return { daemon: await startNydusd(scratch, ['--shared-dir', host], { where, ...limited }), host, outside, socket }
}

function connect(socket: string): TestFrontEnd {
  const guest = new TestFrontEnd(socket)
  guest.start()
  if (guest.init().error !== 0) throw new Error('INIT')
  return guest
}

const descriptors = (daemon: RunningDaemon): number => readdirSync(`/proc/${daemon.pid}/fd`).length
const untouched = (outside: string): unknown => [readdirSync(outside), readFileSync(path.join(outside, 'file'), 'utf8')]

/** Lets a process of its own do `code` (Python) until it is ended. */
function meanwhile(code: string, ...args: readonly string[]): { readonly child: ChildProcess } & Disposable {
  const child = spawn('python3', ['-c', code, ...args], { stdio: 'ignore' })
  return { child, [Symbol.dispose]: () => void child.kill('SIGKILL') }
}

describe.runIf(requires.root)('a directory that a machine shares', () => {
  it('is written and read, also by the next machine, which knows no handle of the first', async () => {
    using scratch = new Scratch()
    const { daemon, host, socket } = await start(scratch)
    await using _daemon = daemon
    const bytes = Buffer.alloc(100_000, 'machine ')
    let stale: { readonly node: Node; readonly handle: bigint }
    {
      using guest = connect(socket)
      const file = create(guest, ROOT, 'file')
      expect([file.error, writeOpen(guest, file, 5, bytes)]).toEqual([0, bytes.length])
      expect(readOpen(guest, file, 5, 2 ** 17).body.equals(bytes)).toBe(true)
      expect(truncate(guest, file.node, 20)).toBe(0)
      expect(readFileSync(path.join(host, 'file'), 'latin1')).toBe(`\0\0\0\0\0${bytes.toString('latin1', 0, 15)}`)
      stale = file
    }
    using guest = connect(socket)
    expect(readOpen(guest, stale, 0, 10).error).toBe(-EBADF)
    const found = lookup(guest, 'file')
    expect([found.size, readOpen(guest, open(guest, found.node), 5, 7).body.toString()]).toEqual([20, 'machine'])
    expect(descriptors(daemon)).toBeLessThan(60)
  })

  it('leads nowhere else: no name is a path, no link is followed, no device is opened', async () => {
    using scratch = new Scratch()
    const { daemon, host, outside, socket } = await start(scratch)
    await using _daemon = daemon
    using guest = connect(socket)
    writeFileSync(path.join(host, 'good'), '')
    symlinkSync(outside, path.join(host, 'link'))
    for (const name of ['..', '../outside', '../outside/file', 'link/file', `${outside}/file`, '/', './good', '']) {
      const wrong = withName(guest, ROOT, name, 'good').filter(([, error]) => error !== -EINVAL)
      expect([name, wrong]).toEqual([name, []])
    }
    const link = lookup(guest, 'link').node
    expect([lookup(guest, 'file', link).error, open(guest, link).error, create(guest, link, 'new').error].map((error) => error < 0)).toEqual([true, true, true])
    expect(create(guest, ROOT, 'link').error).toBe(-ENXIO) // it is there, and nothing that is opened
    for (const [name, mode, rdev] of [['zero', 0o020666, 0x105], ['fifo', 0o010666, 0], ['socket', 0o140666, 0]] as const) {
      const { error, node } = mknod(guest, ROOT, name, mode, rdev)
      expect([name, error, open(guest, node).error, create(guest, ROOT, name).error, readOpen(guest, { node, handle: 0n }, 0, 10).error]).toEqual([name, 0, -ENXIO, -ENXIO, -ENXIO])
    }
    expect(untouched(outside)).toEqual([['file'], SECRET])
    expect(readdirSync(host).sort()).toEqual(['fifo', 'good', 'link', 'socket', 'zero'])
  })

  it('knows no nodes and handles but those that it gave out', async () => {
    using scratch = new Scratch()
    const { daemon, host, outside, socket } = await start(scratch)
    await using _daemon = daemon
    writeFileSync(path.join(outside, 'other'), SECRET)
    expect(await daemon.ask('POST', '/api/v1/mount?mountpoint=/second', JSON.stringify({ fs_type: 'passthrough_fs', source: outside, config: '' }))).toMatchObject({ status: 204 })
    writeFileSync(path.join(host, 'a'), 'a')
    writeFileSync(path.join(host, 'b'), 'b')
    using guest = connect(socket)
    const [a, b] = [open(guest, lookup(guest, 'a').node), open(guest, lookup(guest, 'b').node)]
    const second = lookup(guest, 'second').node
    const foreign = open(guest, lookup(guest, 'other', second).node)
    expect([a.error, b.error, foreign.error, second.high === a.node.high]).toEqual([0, 0, 0, false])
    for (const forged of [{ node: a.node, handle: b.handle }, { node: a.node, handle: 4711n }, { node: a.node, handle: 2n ** 63n }, { node: b.node, handle: a.handle }, { node: a.node, handle: foreign.handle + 1n }]) {
      expect(readOpen(guest, forged, 0, 10).error).toBeLessThan(0)
      expect(writeOpen(guest, forged, 0, Buffer.from('forged'))).toBeLessThan(0)
    }
    for (const node of [{ low: 4711, high: a.node.high }, { low: a.node.low, high: 77 }, { low: 0, high: a.node.high }, { low: 0xffff_ffff, high: 0xffff_ffff }]) {
      expect([open(guest, node).error, lookup(guest, 'x', node).error, truncate(guest, node, 0)].every((error) => error < 0)).toBe(true)
    }
    expect(release(guest, { node: a.node, handle: b.handle })).toBe(0) // nothing happens
    expect(readOpen(guest, b, 0, 10).body.toString()).toBe('b')
    forget(guest, a.node, 1000) // more often than it was told
    expect([open(guest, a.node).error, readOpen(guest, a, 0, 10).body.toString()]).toEqual([-ESTALE, 'a'])
    expect(lookup(guest, 'a').node).not.toEqual(a.node)
  })

  it('shows nothing from outside while directories are swapped for links to it', async () => {
    using scratch = new Scratch()
    const { daemon, host, outside, socket } = await start(scratch)
    await using _daemon = daemon
    mkdirSync(path.join(host, 'swapped'))
    writeFileSync(path.join(host, 'swapped', 'file'), 'inside')
    symlinkSync(outside, path.join(host, 'trap'))
    using _swapping = meanwhile([
      'import ctypes, os, sys', 'libc = ctypes.CDLL(None)', 'os.chdir(sys.argv[1])', 'while True: libc.renameat2(-100, b"swapped", -100, b"trap", 2)',
    ].join('\n'), host)
    using guest = connect(socket)
    const seen = new Map<string, number>()
    const note = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1)
    for (const end = Date.now() + 1000; Date.now() < end;) {
      const { node, error } = lookup(guest, 'swapped')
      const file = error === 0 ? lookup(guest, 'file', node) : undefined
      if (file?.error !== 0) {
        note(`error ${file?.error ?? error}`)
        continue
      }
      const opened = open(guest, file.node)
      note(readOpen(guest, opened, 0, 100).body.toString())
      release(guest, opened)
      const made = create(guest, node, 'made')
      if (made.error === 0) release(guest, made)
    }
    expect([...seen.keys()].filter((what) => what !== 'inside' && !what.startsWith('error'))).toEqual([])
    expect(seen.get('inside')).toBeGreaterThan(5)
    expect(untouched(outside)).toEqual([['file'], SECRET])
  })

  it('costs the host a bounded number of descriptors, whatever the machine opens', async () => {
    using scratch = new Scratch()
    const { daemon, host, socket } = await start(scratch, 1000)
    await using _daemon = daemon
    writeFileSync(path.join(host, 'file'), '')
    using guest = connect(socket)
    const { node } = lookup(guest, 'file')
    let last = 0
    for (let i = 0; i < 1000 && last === 0; i++) last = open(guest, node).error
    expect(last).toBe(-ENFILE)
    expect(descriptors(daemon)).toBeLessThan(500)
    expect(await daemon.ask('GET', '/api/v1/daemon')).toMatchObject({ status: 200 }) // and others go on
    guest[Symbol.dispose]()
    await eventually(() => descriptors(daemon) < 60, 'descriptors are closed with the machine')
  })

  it('cannot be left, nor the daemon crashed or filled, by random requests', { timeout: FUZZ_TIMEOUT }, async () => {
    using scratch = new Scratch()
    const { daemon, host, outside, socket } = await start(scratch)
    await using _daemon = daemon
    mkdirSync(path.join(host, 'd'))
    symlinkSync('../../outside', path.join(host, 'd', 'up'))
    for (const name of ['a', 'd/b']) writeFileSync(path.join(host, name), name)
    const before = lstatSync(path.join(outside, 'file'))
    const names = ['a', 'd', 'b', 'up', '..', '.', '../outside', 'up/file', '\xff', 'x'.repeat(255), '', 'c\0..']
    await fuzz('virtiofs shared directory', { leastPassed: 0.5 }, (random, notes) => {
      const pick = (below: number): number => Math.floor(random() * below)
      const one = <T>(list: readonly T[]): T => list[pick(list.length)]!
      using guest = connect(socket)
      const nodes: Node[] = [ROOT]
      for (const name of ['a', 'd']) nodes.push(lookup(guest, name).node)
      let passed = 0
      for (let i = 0; i < 40; i++) {
        const opcode = random() < 0.9 ? one(Object.values(FUSE_OP)) : pick(70)
        if (opcode === FUSE_OP.INIT || opcode === FUSE_OP.DESTROY) continue
        const node = random() < 0.9 ? one(nodes) : { low: pick(100), high: pick(3) }
        // numbers that may be sizes, flags, handles, node ids; then names
        const words = Buffer.alloc(4 * pick(24))
        for (let at = 0; at < words.length; at += 4) words.writeUInt32LE(random() < 0.7 ? one([0, 0, 1, 2, 3, 8, 4096, 0o100644, 0o040755, node.low, node.high]) : pick(2 ** 32), at)
        const text = Buffer.from(`${one(names)}\0${one(names)}\0`, 'latin1')
        const body = random() < 0.1 ? Buffer.from(Array.from({ length: pick(120) }, () => pick(256))) : Buffer.concat([words, text])
        notes(`opcode ${opcode} node ${node.high}:${node.low} body ${body.toString('hex')}`)
        const { error, body: reply } = guest.call(guest.request(opcode, node, body), 16 + one([0, 128, 4096, 2 ** 17]), { parts: 1 + pick(3) })
        if (error === 0) passed++
        if (error === 0 && opcode === FUSE_OP.LOOKUP && reply.length === 128) nodes.push({ low: reply.readUInt32LE(0), high: reply.readUInt32LE(4) })
      }
      return passed > 3
    })
    expect(untouched(outside)).toEqual([['file'], SECRET])
    expect(lstatSync(path.join(outside, 'file'))).toMatchObject({ ctimeMs: before.ctimeMs, mode: before.mode, nlink: 1 })
    expect(existsSync(path.join(scratch.path, 'renamed'))).toBe(false)
    await pause(50)
    expect(descriptors(daemon)).toBeLessThan(60)
    using guest = connect(socket)
    expect(lookup(guest, 'no such name').error).toBe(ENOENT)
  })
})

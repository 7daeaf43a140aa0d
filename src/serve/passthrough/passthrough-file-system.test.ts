// What a client may hold of a shared directory, and for how long. That it does what a directory does is compared in test/mount/shared-dir.test.ts.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bytesOf } from '../../core/byte-string.ts'
import { native } from '../../native/load.ts'
import type { NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { PassthroughFileSystem } from './passthrough-file-system.ts'

const { EBADF, EEXIST, EINVAL, ENFILE, ESTALE } = constants.errno
const ROOT = 1
const READ_WRITE = 2
const out: NodeAnswer = { bytes: new Uint8Array(88), attributesAt: 0, nameSeconds: 0, attributeSeconds: 0, openFlags: 0, handle: 0 }
const by: Operation = { uid: 0, gid: 0, pid: 1, umask: 0, begun: undefined, begin() {} }

let base: string
let root: number
let live: PassthroughFileSystem
const inside = (name: string): string => path.join(base, 'root', name)
const begin = (maxDescriptors = 100): PassthroughFileSystem => new PassthroughFileSystem({ root, maxDescriptors, isPrivileged: false })
const find = (name: string, parent = ROOT): number => live.lookup(parent, name, out)
const openNow = (): number => readdirSync('/proc/self/fd').length

beforeEach(() => {
  base = mkdtempSync(path.join(tmpdir(), 'nydus-shared-'))
  mkdirSync(path.join(base, 'root', 'd'), { recursive: true })
  for (const name of ['a', 'b', 'd/c']) writeFileSync(inside(name), name)
  root = native().beneathRoot(bytesOf(path.join(base, 'root')))
  live = begin()
})
afterEach(() => {
  live.close()
  native().closeFd(root)
  rmSync(base, { recursive: true })
})

describe('PassthroughFileSystem', () => {
  it('gives an open file to requests for its own node only', () => {
    const [a, b] = [find('a'), find('b')]
    const handle = live.open(a, READ_WRITE, out)
    const target = new Uint8Array(8)
    expect([live.read(a, handle, 0, target), live.read(b, handle, 0, target), live.write(b, handle, 0, target, by), live.read(a, handle + 1, 0, target)]).toEqual([1, -EBADF, -EBADF, -EBADF])
    live.release(b, handle)
    expect(live.read(a, handle, 0, target)).toBe(1)
    live.release(a, handle)
    expect(live.read(a, handle, 0, target)).toBe(-EBADF)
  })

  it('gives one node for one file, whatever its names, until it is forgotten as often as it was told', () => {
    const a = find('a')
    expect(live.link(a, ROOT, 'also', by, out)).toBe(a)
    renameSync(inside('also'), inside('d/moved'))
    expect(find('moved', find('d'))).toBe(a)
    live.forget(a, 2)
    expect(live.getattr(a, 0, out)).toBe(0)
    live.forget(a, 1)
    expect([live.getattr(a, 0, out), live.open(a, 0, out)]).toEqual([-ESTALE, -ESTALE])
    expect(find('a')).not.toBe(a)
    live.forget(ROOT, 1000)
    expect(live.getattr(ROOT, 0, out)).toBe(0)
  })

  it('has a limit of open files, and closes all when the client is gone', () => {
    live.close()
    const before = openNow()
    live = begin(5)
    const a = find('a')
    const handles = Array.from({ length: 7 }, () => live.open(a, 0, out))
    expect(handles.map((handle) => Math.sign(handle))).toEqual([1, 1, 1, 1, 1, -1, -1])
    expect([handles.at(-1), live.create(ROOT, 'new', 1, 0o644, by, out), live.opendir(ROOT, out)]).toEqual([-ENFILE, -ENFILE, -ENFILE])
    live.reset()
    expect(openNow()).toBeLessThanOrEqual(before + 4) // the root, its mount
    expect([live.getattr(a, 0, out), live.read(a, handles[0]!, 0, out.bytes)]).toEqual([-ESTALE, -EBADF])
    expect(find('new')).toBeLessThan(0)
  })

  it('keeps few descriptors of many known files, or has a limit of these', () => {
    const before = openNow()
    for (let i = 0; i < 1500; i++) writeFileSync(inside(`many-${i}`), '')
    const nodes = Array.from({ length: 1500 }, (_, i) => find(`many-${i}`))
    const known = nodes.filter((node) => node > 0)
    // with file handles all are known, else as many as may cost a descriptor
    expect([1500, 98, 99, 100]).toContain(known.length)
    expect(openNow() - before).toBeLessThan(1100)
    expect(known.every((node) => live.getattr(node, 0, out) === 0)).toBe(true)
    expect(new Set(known).size).toBe(known.length)
  })

  it('takes what a server before it has done for done, when it is asked again, and only then', () => {
    const again: Operation = { ...by, begun: Date.now() }
    const operations: Record<string, (who: Operation) => number> = {
      mkdir: (who) => live.mkdir(ROOT, 'made', 0o755, who, out),
      symlink: (who) => live.symlink(ROOT, 'pointer', bytesOf('x'), who, out),
      mknod: (who) => live.mknod(ROOT, 'fifo', 0o010644, 0, who, out),
      create: (who) => live.create(ROOT, 'created', 0o200 | READ_WRITE, 0o644, who, out),
      link: (who) => live.link(find('a'), ROOT, 'linked', who, out),
      rename: (who) => live.rename(ROOT, 'b', ROOT, 'c', 0, who),
      unlink: (who) => live.unlink(ROOT, 'linked', who),
      rmdir: (who) => live.rmdir(ROOT, 'made', who),
    }
    for (const [name, operate] of Object.entries(operations)) expect([name, operate(by) >= 0, operate(again) >= 0, operate(by) < 0]).toEqual([name, true, true, true])
    expect(live.mkdir(ROOT, 'd', 0o755, { ...by, begun: Date.now() + 60_000 }, out)).toBe(-EEXIST) // it was there before
    const notes: number[] = []
    const noted: Operation = { ...by, begin: (note = 0) => void notes.push(note) }
    expect([live.rename(ROOT, 'a', ROOT, 'c', 2, noted), live.rename(ROOT, 'a', ROOT, 'c', 2, { ...by, begun: notes[0] })]).toEqual([0, 0])
    expect([readFileSync(inside('a'), 'utf8'), readFileSync(inside('c'), 'utf8')]).toEqual(['b', 'a'])
  })

  it('knows again, from its record, what its client knew and had open', () => {
    live.close()
    const record = path.join(base, 'record')
    const options = { root, maxDescriptors: 100, isPrivileged: false }
    live = new PassthroughFileSystem({ ...options, record })
    const [d, b] = [find('d'), find('b')]
    const c = find('c', d)
    const handle = live.open(c, READ_WRITE | 0o2000, out)
    const notes: number[] = []
    expect(live.write(c, handle, 0, bytesOf('!'), { ...by, begin: (note = 0) => void notes.push(note) })).toBe(1)
    live.forget(b, 1)
    live.close()
    live = new PassthroughFileSystem({ ...options, record, resume: true })
    const target = Buffer.alloc(8)
    const isKnown = live.getattr(c, 0, out) === 0
    if (!isKnown) return // no file handles here, or not for this user
    expect([live.read(c, handle, 0, target), target.toString('latin1', 0, 4), live.getattr(b, 0, out)]).toEqual([4, 'd/c!', -ESTALE])
    expect([find('d'), find('c', d)]).toEqual([d, c])
    // appended once, though asked for twice
    expect([live.write(c, handle, 0, bytesOf('!'), { ...by, begun: notes[0] }), live.write(c, handle, 0, bytesOf('?'), by), readFileSync(inside('d/c'), 'utf8')]).toEqual([1, 1, 'd/c!?'])
    live.forget(c, 1)
    expect(live.getattr(c, 0, out)).toBe(0)
    live.forget(c, 1)
    expect(live.open(c, 0, out)).toBe(-ESTALE)
    live.reset()
    live.close()
    live = new PassthroughFileSystem({ ...options, record, resume: true })
    expect([live.getattr(d, 0, out), live.read(c, handle, 0, target)]).toEqual([-ESTALE, -EBADF])
  })

  it('takes no name that is a path', () => {
    for (const name of ['..', '../root/a', 'd/c', '/etc', '']) {
      expect([name, find(name), live.create(ROOT, name, 1, 0o644, by, out), live.unlink(ROOT, name, by), live.rename(ROOT, 'a', ROOT, name, 0, by)]).toEqual([name, -EINVAL, -EINVAL, -EINVAL, -EINVAL])
    }
    expect(find('.')).toBe(ROOT)
  })
})

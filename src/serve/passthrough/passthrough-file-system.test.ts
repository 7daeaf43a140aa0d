// What a client may hold of a shared directory, and for how long. That it does what a directory does is compared in test/mount/shared-dir.test.ts.

import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bytesOf } from '../../core/byte-string.ts'
import { native } from '../../native/load.ts'
import type { NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { PassthroughFileSystem } from './passthrough-file-system.ts'

const { EBADF, EINVAL, ENFILE, ESTALE } = constants.errno
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
    expect([live.read(a, handle, 0, target), live.read(b, handle, 0, target), live.write(b, handle, 0, target), live.read(a, handle + 1, 0, target)]).toEqual([1, -EBADF, -EBADF, -EBADF])
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

  it('takes no name that is a path', () => {
    for (const name of ['..', '../root/a', 'd/c', '/etc', '']) {
      expect([name, find(name), live.create(ROOT, name, 1, 0o644, by, out), live.unlink(ROOT, name, by), live.rename(ROOT, 'a', ROOT, name, 0, by)]).toEqual([name, -EINVAL, -EINVAL, -EINVAL, -EINVAL])
    }
    expect(find('.')).toBe(ROOT)
  })
})

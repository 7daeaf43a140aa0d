// Calls below a directory, as an ordinary user may make them; what needs root runs through mounts (test/mount/shared-dir.test.ts).

import { closeSync, constants, linkSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { constants as machine, tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../core/byte-string.ts'
import { directoryRecords, FileStatus } from './beneath.ts'
import { native } from './load.ts'

const { EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTEMPTY, ENXIO, EXDEV, EEXIST, ENODATA, ERANGE } = machine.errno
const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_APPEND } = constants
const base = mkdtempSync(path.join(tmpdir(), 'nydus-beneath-'))
const root = path.join(base, 'root')
const inside = (name: string): string => path.join(root, name)
mkdirSync(root)
writeFileSync(path.join(base, 'secret'), 'outside')
const addon = native()
const opened = [addon.beneathRoot(bytesOf(root))]
const top = opened[0]!
const keep = (fd: number): number => {
  expect(fd).toBeGreaterThan(0)
  opened.push(fd)
  return fd
}
afterAll(() => {
  opened.forEach((fd) => { closeSync(fd) })
  rmSync(base, { recursive: true, force: true })
})
const status = new FileStatus()

describe('names below a directory', () => {
  it('are one component: no path, no dots, no NUL', () => {
    for (const name of ['', '.', '..', '/', 'a/b', '../secret', '/etc', 'a\0b', '..\0']) {
      for (const result of [
        addon.openChild(top, name, O_RDONLY, 0), addon.lookupChild(top, name, status.bytes), addon.makeDirectory(top, name, 0o755), addon.makeNodeAt(top, name, 0o100644, 0),
        addon.makeLink(top, name, bytesOf('x')), addon.hardLink(top, top, name), addon.renameAt(top, name, top, 'b', 0), addon.renameAt(top, 'a', top, name, 0), addon.removeAt(top, name, false),
      ]) expect([name, result]).toEqual([name, -EINVAL])
    }
    expect(addon.makeDirectory(top, 'x'.repeat(256), 0o755)).toBe(-ENAMETOOLONG)
    expect(readdirSync(base).sort()).toEqual(['root', 'secret'])
  })

  it('lead through no link', () => {
    symlinkSync('../secret', inside('out'))
    symlinkSync('..', inside('up'))
    expect(addon.openChild(top, 'out', O_RDONLY, 0)).toBe(-ELOOP)
    expect(addon.beneathOpen(top, bytesOf('up/secret'), O_RDONLY, 0, 0)).toBe(-EXDEV)
    expect(addon.beneathOpen(top, bytesOf('../secret'), O_RDONLY, 0, 0)).toBe(-EXDEV)
    const link = keep(addon.lookupChild(top, 'out', status.bytes))
    expect(status.mode).toBe(lstatSync(inside('out')).mode)
    expect(addon.reopen(link, O_RDONLY, 0)).toBe(-ENXIO)
    const buffer = Buffer.alloc(100)
    expect(buffer.toString('latin1', 3, 3 + addon.readLinkOf(link, buffer, 3, 90))).toBe('../secret')
    expect(addon.readLinkOf(link, buffer, 90, 90)).toBe(-EINVAL)
  })

  it('are listed with cookies that reading goes on from', () => {
    mkdirSync(inside('many'))
    for (let i = 0; i < 50; i++) writeFileSync(inside(`many/file-${i}`), '')
    const directory = keep(addon.reopen(keep(addon.lookupChild(top, 'many', status.bytes)), O_RDONLY, 0))
    const buffer = Buffer.alloc(400)
    const names: string[] = []
    for (let low = 0, high = 0; ;) {
      const size = addon.readDirectory(directory, low, high, buffer, 0, buffer.length)
      if (size === 0) break
      const [entry] = directoryRecords(buffer, 0, size) // one at a time: the others are read again
      names.push(entry!.name)
      low = entry!.cookieLow
      high = entry!.cookieHigh
    }
    expect(names.sort()).toEqual(['.', '..', ...readdirSync(inside('many'))].sort())
    expect(addon.readDirectory(directory, 0, 0, buffer, 0, 500)).toBe(-EINVAL)
  })
})

describe('files below a directory', () => {
  it('are made, linked, renamed and removed', () => {
    expect(addon.makeDirectory(top, 'd', 0o755)).toBe(0)
    const directory = keep(addon.lookupChild(top, 'd', status.bytes))
    const file = keep(addon.openChild(directory, 'f', O_RDWR | O_CREAT | O_EXCL, 0o640))
    expect(addon.writeAt(file, Buffer.from('__hello__'), 2, 5, 3, 0)).toBe(5)
    const buffer = Buffer.alloc(10, '.')
    expect([addon.readAt(file, buffer, 1, 9, 0, 0), buffer.toString('latin1')]).toEqual([8, '.\0\0\0hello.'])
    expect(addon.writeAt(file, buffer, 8, 5, 0, 0)).toBe(-EINVAL)
    expect([addon.hardLink(file, directory, 'g'), addon.hardLink(file, directory, 'g')]).toEqual([0, -EEXIST])
    expect(addon.makeLink(directory, 'l', bytesOf('any/where'))).toBe(0)
    expect(readlinkSync(inside('d/l'))).toBe('any/where')
    expect(addon.makeNodeAt(directory, 'fifo', 0o010600, 0)).toBe(0)
    expect(addon.reopen(keep(addon.lookupChild(directory, 'fifo', status.bytes)), O_RDWR, 0)).toBe(-ENXIO)
    expect([addon.renameAt(directory, 'g', top, 'f', 1), addon.renameAt(directory, 'f', top, 'f', 1), addon.renameAt(directory, 'l', top, 'f', 2)]).toEqual([0, -EEXIST, 0])
    expect([addon.removeAt(directory, 'l', false), addon.removeAt(directory, 'gone', false), addon.removeAt(top, 'd', true)]).toEqual([0, -ENOENT, -ENOTEMPTY])
    expect(readdirSync(inside('d')).sort()).toEqual(['f', 'fifo'])
  })

  it('have attributes that are told and changed through any descriptor of them', () => {
    writeFileSync(inside('attributes'), 'abc')
    linkSync(inside('attributes'), inside('attributes-2'))
    const fd = keep(addon.lookupChild(top, 'attributes', status.bytes))
    expect([addon.changeMode(fd, 0o604), addon.changeTimes(fd, -5, 7, 2 ** 33, 8), addon.statusOf(fd, status.bytes, true)]).toEqual([0, 0, 0])
    const { ino, dev } = lstatSync(inside('attributes'))
    const { view } = status
    expect({ ino: view.getUint32(0, true), size: view.getUint32(8, true), mode: status.mode, links: view.getUint32(64, true), atime: view.getInt32(24, true), mtimeHigh: view.getUint32(36, true), nsec: view.getUint32(52, true) })
      .toEqual({ ino: ino % 2 ** 32, size: 3, mode: 0o100604, links: 2, atime: -5, mtimeHigh: 2, nsec: 8 })
    expect([status.device, status.mount > 0]).toEqual([Math.floor(dev / 256) % 2 ** 12 * 2 ** 20 + dev % 256, true])
    const writable = keep(addon.reopen(fd, O_RDWR | O_APPEND, 0))
    expect([addon.changeSize(writable, 1), addon.writeAt(writable, Buffer.from('xy'), 0, 2, 0, 0), readFileSync(inside('attributes'), 'utf8')]).toEqual([0, 2, 'axy'])
    expect([addon.syncFd(writable, true), addon.syncFd(writable, false), addon.changeOwner(fd, -1, -1)]).toEqual([0, 0, 0])
  })

  it('have extended attributes, also through a descriptor that only names them', () => {
    writeFileSync(inside('xattr'), '')
    const fd = keep(addon.lookupChild(top, 'xattr', status.bytes))
    const buffer = Buffer.alloc(20)
    if (addon.setXattrOf(fd, 'user.a', Buffer.from('value'), 0) !== 0) return // a file system without any
    expect(addon.setXattrOf(fd, 'user.a', Buffer.from('v'), 1)).toBe(-EEXIST)
    expect([addon.getXattrOf(fd, 'user.a', buffer, 0, 0), addon.getXattrOf(fd, 'user.a', buffer, 2, 4), addon.getXattrOf(fd, 'user.a', buffer, 2, 10), buffer.toString('latin1', 2, 7)]).toEqual([5, -ERANGE, 5, 'value'])
    expect([addon.listXattrOf(fd, buffer, 0, 20), buffer.toString('latin1', 0, 7)]).toEqual([7, 'user.a\0'])
    expect([addon.removeXattrOf(fd, 'user.a'), addon.getXattrOf(fd, 'user.a', buffer, 0, 0), addon.getXattrOf(fd, `user.${'x'.repeat(300)}`, buffer, 0, 0)]).toEqual([0, -ENODATA, -ERANGE])
  })

  it('are counted, copied and reported by the file system that they are on', () => {
    writeFileSync(inside('from'), 'some bytes')
    const from = keep(addon.openChild(top, 'from', O_RDONLY, 0))
    const to = keep(addon.openChild(top, 'to', O_RDWR | O_CREAT, 0o600))
    expect([addon.copyRange(from, 5, to, 1, 5), readFileSync(inside('to'), 'latin1')]).toEqual([5, '\0bytes'])
    const buffer = Buffer.alloc(90)
    expect([addon.statfsOf(top, buffer, 10), addon.statfsOf(top, buffer, 11)]).toEqual([0, -EINVAL])
    expect(buffer.readUInt32LE(10 + 44)).toBe(255)
  })
})

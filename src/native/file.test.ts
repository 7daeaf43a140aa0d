import { closeSync, ftruncateSync, lstatSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../core/byte-string.ts'
import { dataRanges, makeNode, mapFile, punchHole, readXattrs, setTime, setXattr } from './file.ts'
import { native } from './load.ts'

const directory = mkdtempSync(path.join(tmpdir(), 'nydus-file-'))
const inside = (name: string): string => path.join(directory, name)
const opened: number[] = []
afterAll(() => {
  for (const fd of opened) closeSync(fd)
  rmSync(directory, { recursive: true, force: true })
})

function create(name: string, bytes: Uint8Array | string = ''): number {
  writeFileSync(inside(name), bytes)
  const fd = openSync(inside(name), 'r+')
  opened.push(fd)
  return fd
}

const gcNow: () => void = (() => {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8')
  setFlagsFromString('--expose-gc')
  // SAFETY: a context made after --expose-gc has a global `gc` function.
  return process.getBuiltinModule('node:vm').runInNewContext('gc') as () => void
})()

const mapped = (name: string): boolean => readFileSync('/proc/self/maps', 'utf8').includes(inside(name))

describe('extended attributes, nodes and times', () => {
  it('are those of the link itself', () => {
    create('target')
    symlinkSync('target', inside('link'))
    setTime(inside('link'), { seconds: 1000, nanoseconds: 5 })
    expect(lstatSync(inside('link'), { bigint: true }).mtimeNs).toBe(1_000_000_000_005n)
    expect(statSync(inside('link')).mtimeMs).toBeGreaterThan(1e9)
    setXattr(inside('target'), 'user.k', Buffer.from('v'))
    expect(readXattrs(inside('link'))).toEqual([]) // following would find user.k
  })

  it('fail with a coded error that names path and attribute', () => {
    expect(() => setXattr(inside('none'), 'user.k', new Uint8Array(1))).toThrow(/lsetxattr user\.k .*none: ENOENT/)
    expect(() => setXattr(inside('none'), 'user.'.padEnd(300, 'x'), new Uint8Array(1))).toThrow(/ERANGE/)
    expect(() => makeNode(inside('nul\0'), { mode: 0o010600, rdev: 0 })).toThrow(/EINVAL/)
    expect(() => setTime('/'.padEnd(5000, 'x'), { seconds: 0, nanoseconds: 0 })).toThrow(/ENAMETOOLONG/)
  })

  it('makes a fifo under the umask', () => {
    const before = native().umask(0o077)
    try {
      makeNode(inside('fifo'), { mode: 0o010666, rdev: 0 })
    } finally {
      expect(native().umask(before)).toBe(0o077)
    }
    expect(lstatSync(inside('fifo')).mode).toBe(0o010600)
  })
})

describe('holes', () => {
  it('are skipped by dataRanges and made by punchHole', () => {
    const fd = create('sparse')
    ftruncateSync(fd, 1 << 20)
    writeSync(fd, Buffer.alloc(8192, 1), 0, 8192, 65_536)
    writeSync(fd, Buffer.alloc(4096, 2), 0, 4096, 524_288)
    const ranges = [...dataRanges(fd, 1 << 20)]
    expect(ranges.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(12_288)
    expect(ranges.some(({ offset, length }) => offset <= 65_536 && offset + length >= 73_728)).toBe(true)
    punchHole(fd, { offset: 65_536, length: 8192 })
    expect([...dataRanges(fd, 1 << 20)].some(({ offset }) => offset <= 65_536)).toBe(false)
    expect(statSync(inside('sparse')).size).toBe(1 << 20)
    expect([...dataRanges(fd, 0)]).toEqual([])
  })
})

describe('locks and reads', () => {
  it('a lock keeps others out, without waiting when asked', () => {
    const fd = create('locked')
    const other = openSync(inside('locked'), 'r')
    opened.push(other)
    expect(native().flock(fd, 2)).toBe(0)
    expect(native().flock(other, 2 | 4)).toBe(-11) // EAGAIN
    expect(native().flock(fd, 8)).toBe(0)
    expect(native().flock(other, 2 | 4)).toBe(0)
  })

  it('pread reads into the middle of a buffer and refuses to leave it', () => {
    const fd = create('read', 'abcdef')
    const buffer = Buffer.alloc(8, '.')
    expect(native().pread(fd, buffer, 2, 4, 1)).toBe(4)
    expect(buffer.toString()).toBe('..bcde..')
    expect(native().pread(fd, buffer, 0, 8, 4)).toBe(2)
    for (const [at, length] of [[0, 9], [8, 1], [-1, 1], [1, -1], [2 ** 40, 1]] as const) expect(native().pread(fd, buffer, at, length, 0)).toBe(-22)
    expect(native().fdatasync(fd)).toBe(0)
    expect(native().fdatasync(-1)).toBe(-9)
  })

  it('preadNow reads what is in memory', () => {
    const fd = create('now', 'abcdef')
    const buffer = Buffer.alloc(4, '.')
    expect(native().preadNow(fd, buffer, 1)).toBe(4)
    expect(buffer.toString()).toBe('bcde')
    expect(native().preadNow(fd, buffer, 4)).toBe(2)
    expect(native().preadNow(fd, buffer, -1)).toBe(-22)
    expect(native().preadNow(-1, buffer, 0)).toBe(-9)
  })
})

describe('mappings', () => {
  it('share their bytes with the file, both ways', () => {
    const fd = create('map', Buffer.alloc(8192, 7))
    const bytes = new Uint8Array(mapFile(fd, { offset: 4096, length: 4096, writable: true }))
    expect(bytes[0]).toBe(7)
    bytes[0] = 9
    writeSync(fd, Buffer.of(8), 0, 1, 4097)
    expect([readFileSync(inside('map'))[4096], bytes[1]]).toEqual([9, 8])
    native().munmap(bytes.buffer)
    expect(bytes.length).toBe(0)
    expect(mapped('map')).toBe(false)
    native().munmap(bytes.buffer) // again: nothing happens
    gcNow()
  })

  it('go away with their last reference', async () => {
    const fd = create('collected', Buffer.alloc(4096))
    let bytes: Uint8Array | undefined = new Uint8Array(mapFile(fd, { offset: 0, length: 4096, writable: false }))
    expect(bytes[0]).toBe(0)
    expect(mapped('collected')).toBe(true)
    bytes = undefined
    for (let i = 0; i < 50 && mapped('collected'); i++) {
      gcNow()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(mapped('collected')).toBe(false)
  })

  it('beyond the end of the file are refused, instead of a SIGBUS later', () => {
    const fd = create('short', Buffer.alloc(4097))
    expect(() => mapFile(fd, { offset: 0, length: 4098, writable: false })).toThrow(expect.objectContaining({ context: expect.objectContaining({ errnoName: 'ENODATA' }) }))
    for (const [offset, length] of [[1, 1], [-4096, 1], [0, 0], [0, -1]] as const) {
      expect(() => mapFile(fd, { offset, length, writable: false })).toThrow(/EINVAL/)
    }
    expect(() => mapFile(-1, { offset: 0, length: 1, writable: false })).toThrow(/EBADF/)
    expect(() => native().munmap(new ArrayBuffer(8))).toThrow(TypeError)
  })

  it('offer atomic operations', () => {
    const cells = new Uint32Array(mapFile(create('atomic', Buffer.alloc(64)), { offset: 0, length: 64, writable: true }))
    expect(native().atomicOr(cells, 3, 0x8000_0001)).toBe(0)
    expect(native().atomicOr(cells, 3, 2)).toBe(0x8000_0001)
    expect(native().atomicCompareExchange(cells, 3, 5, 6)).toBe(0x8000_0003)
    expect(native().atomicCompareExchange(cells, 3, 0x8000_0003, 6)).toBe(0x8000_0003)
    expect(cells[3]).toBe(6)
    for (const index of [-1, 16]) expect(() => native().atomicOr(cells, index, 1)).toThrow(TypeError)
  })

  it('and reused contexts survive the end of a worker thread', async () => {
    create('worker', Buffer.alloc(4096))
    const addon = path.resolve(import.meta.dirname, '../../build/nydus.node')
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(`
        const { workerData, parentPort } = require('node:worker_threads')
        const addon = require(workerData.addon)
        const fd = require('node:fs').openSync(workerData.file, 'r')
        globalThis.kept = [addon.mmap(fd, 0, 4096, false), addon.streamOpen(3)]
        const out = Buffer.alloc(4000)
        const size = addon.zstdCompress(Buffer.alloc(4096), out, 3)
        parentPort.postMessage(addon.zstdDecompress(out.subarray(0, size), Buffer.alloc(4096)))
        addon.closeFd(fd)`, { eval: true, workerData: { addon, file: inside('worker') } })
      const size = await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject) })
      expect(size).toBe(4096)
      await worker.terminate()
    }
    expect(mapped('worker')).toBe(false)
    expect(native().pread(-1, bytesOf('x'), 0, 1, 0)).toBe(-9)
  })
})

// Replies are written to an ordinary file in place of /dev/fuse: the bytes are what matters.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CodedError } from '../core/errors.ts'
import { outHeader } from '../wire/fuse/header.ts'
import { createCounterMemory, fsIoStats, OperationCounters } from './counters.ts'
import { ERRNO } from './errno.ts'
import type { Miss } from './fuse/core.ts'
import { MissDesk, type MissSource, replyTo } from './miss-desk.ts'

const counters = createCounterMemory(1)
let directory: string
let fd: number

type ReadInto = MissSource['readInto']
const imageOf = (readInto: ReadInto): MissSource => ({ readInto })
const miss = (unique: number): Miss => ({ uniqueLow: unique, uniqueHigh: 0x8000_0000, serial: 1, nid: 5, offset: 4096, length: 10 })
const never: ReadInto = (_nid, _offset, _target, { signal }) => new Promise((_, reject) => { signal.addEventListener('abort', () => reject(signal.reason)) })

function replies(): { errno: number; uniqueLow: number; body: string }[] {
  const bytes = readFileSync(path.join(directory, 'device'))
  const found = []
  for (let at = 0; at < bytes.length;) {
    const header = outHeader.decode(bytes, at)
    expect(header.uniqueHigh).toBe(0x8000_0000)
    found.push({ errno: Math.abs(header.error), uniqueLow: header.uniqueLow, body: bytes.toString('latin1', at + outHeader.size, at + header.length) })
    at += header.length
  }
  return found
}

async function settled(desk: MissDesk): Promise<void> {
  for (let i = 0; i < 100 && desk.inflight().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(desk.inflight()).toEqual([])
}

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-miss-'))
  fd = openSync(path.join(directory, 'device'), 'w')
})
afterEach(() => {
  closeSync(fd)
  rmSync(directory, { recursive: true })
})

describe('MissDesk', () => {
  const desk = (deadlineMs?: number): MissDesk => new MissDesk(new OperationCounters(counters, 0), deadlineMs)

  it('gives a read up when its image says so, and the kernel\'s repetition of it at once', async () => {
    const one = desk()
    let asked = 0
    const slow: MissSource = { ...imageOf((...given) => { asked++; return never(...given) }), readDeadlineMs: 1100 }
    const began = Date.now()
    one.take(1, replyTo(fd), slow, miss(1), Date.now())
    await new Promise((resolve) => setTimeout(resolve, 1200))
    await settled(one)
    one.take(1, replyTo(fd), slow, { ...miss(2), offset: 4100, length: 1 }, Date.now())
    one.take(1, replyTo(fd), slow, { ...miss(3), nid: 6 }, Date.now())
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(one.inflight()).toMatchObject([{ inode: 6 }])
    await one.close()
    expect(Date.now() - began).toBeLessThan(10_000)
    expect(asked).toBe(2)
    expect(replies().slice(0, 2).map(({ errno, uniqueLow }) => [errno, uniqueLow])).toEqual([[ERRNO.EIO, 1], [ERRNO.EIO, 2]])
  })

  it('answers with the bytes, under the request\'s own id', async () => {
    const one = desk()
    one.take(1, replyTo(fd), imageOf(async (nid, offset, target) => target.fill(65 + nid + offset / 4096).length), miss(7), Date.now())
    expect(one.inflight()).toMatchObject([{ inode: 5, opcode: 15 }])
    await settled(one)
    expect(replies()).toEqual([{ errno: 0, uniqueLow: 7, body: 'GGGGGGGGGG' }])
  })

  it('answers a failed fetch with EIO and no bytes, and one for an unmounted image with ESTALE', async () => {
    const one = desk()
    one.take(1, replyTo(fd), imageOf(async (_inode, _offset, target) => {
      target.fill(1)
      throw new CodedError('STORAGE_DIGEST_MISMATCH', 'chunk 0')
    }), miss(1), Date.now())
    await settled(one)
    one.take(1, replyTo(fd), undefined, miss(2), Date.now())
    await settled(one)
    expect(replies()).toEqual([{ errno: ERRNO.EIO, uniqueLow: 1, body: '' }, { errno: ERRNO.ESTALE, uniqueLow: 2, body: '' }])
  })

  it('gives an interrupted read up with EINTR, and leaves the others alone', async () => {
    const one = desk()
    one.take(1, replyTo(fd), imageOf(never), miss(1), Date.now())
    one.take(1, replyTo(fd), imageOf(never), miss(3), Date.now())
    one.interrupt(1, replyTo(fd), 1, 0x8000_0000)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(replies()).toEqual([{ errno: ERRNO.EINTR, uniqueLow: 1, body: '' }])
    expect(one.inflight()).toHaveLength(1)
    await one.close()
  })

  it('asks the kernel to send an INTERRUPT again that came before its request', () => {
    desk().interrupt(1, replyTo(fd), 8, 0x8000_0000)
    expect(replies()).toEqual([{ errno: ERRNO.EAGAIN, uniqueLow: 9, body: '' }])
  })

  it('lets no read hang for ever: after its deadline it is EIO', async () => {
    const one = desk(30)
    one.take(1, replyTo(fd), imageOf(never), miss(1), Date.now())
    await settled(one)
    expect(replies()).toEqual([{ errno: ERRNO.EIO, uniqueLow: 1, body: '' }])
  })

  it('answers everything when it is closed, and what comes afterwards with EIO, fetching nothing', async () => {
    const one = desk()
    one.take(1, replyTo(fd), imageOf(never), miss(1), Date.now())
    one.take(2, replyTo(fd), imageOf(never), miss(2), Date.now())
    await one.close()
    one.take(1, replyTo(fd), imageOf(() => { throw new Error('asked for bytes') }), miss(3), Date.now())
    expect(replies()).toEqual([{ errno: ERRNO.EINTR, uniqueLow: 1, body: '' }, { errno: ERRNO.EINTR, uniqueLow: 2, body: '' }, { errno: ERRNO.EIO, uniqueLow: 3, body: '' }])
    expect(one.inflight()).toEqual([])
  })

  it('counts reads and failures', async () => {
    const memory = createCounterMemory(1)
    const one = new MissDesk(new OperationCounters(memory, 0))
    one.take(1, replyTo(fd), imageOf(async () => 10), miss(1), Date.now())
    one.take(1, replyTo(fd), undefined, miss(2), Date.now())
    await settled(one)
    const stats = fsIoStats(memory, '/')
    expect(stats).toMatchObject({ id: '/', data_read: 10, block_count_read: [1, 0, 0, 0, 0, 0, 0, 0] })
    expect(stats).toHaveProperty('fop_hits', [0, 0, 0, 0, 2, ...Array<number>(10).fill(0)])
    expect(stats).toHaveProperty('fop_errors', [0, 0, 0, 0, 1, ...Array<number>(10).fill(0)])
  })
})

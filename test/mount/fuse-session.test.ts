// The addon's FUSE sessions against the real kernel: a server of one file, its requests answered here by hand.

import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../../src/core/byte-string.ts'
import { checked } from '../../src/native/errno.ts'
import { native } from '../../src/native/load.ts'
import { FOPEN, openOut, readIn } from '../../src/wire/fuse/file.ts'
import { inHeader, outHeader } from '../../src/wire/fuse/header.ts'
import { initIn, initOut } from '../../src/wire/fuse/init.ts'
import { attr, attrOut, entryOut } from '../../src/wire/fuse/inode.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'

const SLOT = (1 << 20) + 8192
const MS_NODEV_NOSUID_RDONLY = 4 | 2 | 1
const MNT_DETACH = 2
const ENODEV = -19
const FILE_SIZE = 300_000

const directory = mkdtempSync(path.join(tmpdir(), 'nydus-fuse-'))
const backing = path.join(directory, 'backing')
const content = Buffer.from(Array.from({ length: FILE_SIZE }, (_, i) => (i * 31 + (i >> 8)) & 0xff))
const ATTR = {
  inoLow: 1, inoHigh: 0, sizeLow: 0, sizeHigh: 0, blocksLow: 0, blocksHigh: 0, atimeLow: 0, atimeHigh: 0, mtimeLow: 0, mtimeHigh: 0, ctimeLow: 0, ctimeHigh: 0,
  atimeNsec: 0, mtimeNsec: 0, ctimeNsec: 0, mode: 0o040755, nlink: 1, uid: 0, gid: 0, rdev: 0, blockSize: 4096, flags: 0,
}
const rootAttr = attr.encode(ATTR)
const fileAttr = attr.encode({ ...ATTR, inoLow: 2, mode: 0o100644, sizeLow: FILE_SIZE })

interface Row { cookie: number; fd: number; length: number; opcode: number }

/** A wait set with its buffers. `serve` answers what comes while it waits for `work`; replies go out with the next exchange, as in the daemon. */
class Server {
  readonly set = checked(native().waitSetCreate(), 'epoll_create1')
  readonly wakeUp = checked(native().eventCreate(), 'eventfd')
  readonly errors = new Int32Array(1)
  readonly seen: Row[] = []
  exchanges = 0
  backingFd = -1
  /** Replies to READ come from this offset of the backing file instead of the right one. */
  shift = 0
  readonly #mounts: { fd: number; target: string }[] = []
  readonly #input = new Uint8Array(4 * SLOT)
  readonly #out = new Uint8Array(64 * 1024)
  readonly #replies = new Int32Array(7 * 16)
  readonly #requests = new Int32Array(4 * 4)
  /** Room for this many requests. */
  rows = 4
  #replyCount = 0
  #used = 0

  constructor() {
    checked(native().waitSetAdd(this.set, this.wakeUp, 9, 1), 'epoll_ctl')
  }

  mount(name: string, cookie: number): string {
    const target = path.join(directory, name)
    mkdirSync(target)
    const fd = checked(native().fuseMount('test', 'fuse.nydus-test', bytesOf(target), MS_NODEV_NOSUID_RDONLY, 'rootmode=40000,user_id=0,group_id=0,allow_other'), 'mount', target)
    this.#mounts.push({ fd, target })
    checked(native().waitSetAdd(this.set, fd, cookie, 0), 'epoll_ctl')
    return target
  }

  /** One exchange; answers what it delivers. */
  step(timeoutMs: number): Row[] {
    const count = checked(native().exchange(this.set, this.#out, this.#replies, this.#replyCount, this.#input, SLOT, this.#requests.subarray(0, 4 * this.rows), timeoutMs, this.errors), 'exchange')
    this.exchanges++
    this.#replyCount = this.#used = 0
    const rows: Row[] = []
    for (let i = 0; i < count; i++) {
      const [cookie = 0, fd = 0, at = 0, length = 0] = this.#requests.subarray(4 * i)
      const request = this.#input.subarray(at, at + Math.max(length, 0))
      const row = { cookie, fd, length, opcode: length > 0 ? inHeader.decode(request).opcode : -1 }
      rows.push(row)
      if (length > 0) this.#answer(fd, request)
    }
    this.seen.push(...rows)
    return rows
  }

  async serve<T>(work: Promise<T>): Promise<T> {
    let running = true
    work.catch(() => {}).finally(() => { running = false })
    while (running) {
      this.step(20)
      await new Promise((resolve) => setImmediate(resolve))
    }
    this.step(0) // replies of the last one
    return await work
  }

  reply(fd: number, { unique, body = new Uint8Array(0), error = 0, file = { fd: -1, offset: 0, length: 0 } }: {
    unique: readonly [number, number]; body?: Uint8Array; error?: number; file?: { fd: number; offset: number; length: number }
  }): void {
    const length = outHeader.size + body.length
    outHeader.encode({ length: length + file.length, error, uniqueLow: unique[0], uniqueHigh: unique[1] }, this.#out, this.#used)
    this.#out.set(body, this.#used + outHeader.size)
    this.#replies.set([fd, this.#used, length, file.fd, file.offset, 0, file.length], 7 * this.#replyCount++)
    this.#used += length
  }

  close(): void {
    for (const { target } of this.#mounts) native().umount(bytesOf(target), MNT_DETACH)
    for (const { fd } of this.#mounts) native().closeFd(fd)
    for (const fd of [this.set, this.wakeUp]) native().closeFd(fd)
  }

  #answer(fd: number, request: Uint8Array): void {
    const { opcode, uniqueLow, uniqueHigh, nodeLow } = inHeader.decode(request)
    const unique = [uniqueLow, uniqueHigh] as const
    const body = request.subarray(inHeader.size)
    const attributes = { validLow: 0, validHigh: 0, validNsec: 0 }
    switch (opcode) {
      case FUSE_OP.INIT: {
        const { maxReadahead } = initIn.decode(body)
        this.reply(fd, { unique, body: initOut.encode({
          major: 7, minor: 31, maxReadahead, flags: 0, maxBackground: 16, congestionThreshold: 12, maxWrite: 1 << 20, timeGranularity: 1, maxPages: 256, mapAlignment: 0, flags2: 0,
        }) })
        break
      }
      case FUSE_OP.GETATTR:
        this.reply(fd, { unique, body: attrOut.encode({ ...attributes, attr: nodeLow === 1 ? rootAttr : fileAttr }) })
        break
      case FUSE_OP.LOOKUP:
        this.reply(fd, { unique, body: entryOut.encode({
          nodeLow: 2, nodeHigh: 0, generation: 0n, entryValidLow: 0, entryValidHigh: 0, attrValidLow: 0, attrValidHigh: 0, entryValidNsec: 0, attrValidNsec: 0, attr: fileAttr,
        }) })
        break
      case FUSE_OP.OPEN:
        this.reply(fd, { unique, body: openOut.encode({ handle: 0n, flags: FOPEN.DIRECT_IO }) })
        break
      case FUSE_OP.READ: {
        const { offsetLow, size } = readIn.decode(body)
        const length = Math.min(size, Math.max(FILE_SIZE - offsetLow, 0))
        this.reply(fd, { unique, file: { fd: this.backingFd, offset: offsetLow + this.shift, length } })
        break
      }
      case FUSE_OP.FORGET: case FUSE_OP.BATCH_FORGET: case FUSE_OP.INTERRUPT: case FUSE_OP.DESTROY:
        break // without a reply
      case FUSE_OP.FLUSH: case FUSE_OP.RELEASE: case FUSE_OP.ACCESS:
        this.reply(fd, { unique })
        break
      default:
        this.reply(fd, { unique, error: -38 }) // ENOSYS
    }
  }
}

describe('a FUSE session', () => {
  let server: Server
  let backingFd: number
  const servers: Server[] = []
  const start = (): Server => { server = new Server(); server.backingFd = backingFd; servers.push(server); return server }

  beforeAll(() => {
    writeFileSync(backing, content)
    backingFd = openSync(backing, 'r')
  })
  afterEach(() => { for (const one of servers.splice(0)) one.close() })
  afterAll(() => {
    closeSync(backingFd)
    rmSync(directory, { recursive: true, force: true })
  })

  it('answers INIT and GETATTR', async () => {
    const target = start().mount('init', 4)
    expect((await server.serve(stat(path.join(target, 'file')))).size).toBe(FILE_SIZE)
    expect(server.seen.map(({ opcode }) => opcode)).toEqual(expect.arrayContaining([FUSE_OP.INIT, FUSE_OP.LOOKUP]))
    expect(new Set(server.seen.map(({ cookie }) => cookie))).toEqual(new Set([4]))
    expect(server.errors[0]).toBe(0)
  })

  it('sends file bytes that never cross JavaScript', async () => {
    const target = start().mount('read', 0)
    expect((await server.serve(readFile(path.join(target, 'file')))).equals(content)).toBe(true)
    expect(server.errors[0]).toBe(0)
  })

  it('turns a short or unreadable file into EIO, never into other or fewer bytes', async () => {
    const target = start().mount('short', 0)
    const read = async (): Promise<unknown> => {
      await using file = await open(path.join(target, 'file'))
      return await file.read(Buffer.alloc(1000), 0, 1000, FILE_SIZE - 1000)
    }
    server.shift = 1 // one byte is missing
    await expect(server.serve(read())).rejects.toMatchObject({ code: 'EIO' })
    server.shift = 0
    expect(await server.serve(read())).toMatchObject({ bytesRead: 1000 })
    server.backingFd = openSync(directory, 'r') // a directory cannot be read
    await expect(server.serve(read())).rejects.toMatchObject({ code: 'EIO' })
    closeSync(server.backingFd)
    server.backingFd = 999_999 // nor a descriptor that is not open (not the closed one: its number may be the client's file by now)
    await expect(server.serve(read())).rejects.toMatchObject({ code: 'EIO' })
    expect(server.errors[0]).toBe(0)
  })

  it('shares its wait set with others, and each request says whose it is', async () => {
    const [first, second] = [start().mount('first', 1), server.mount('second', 2 ** 31 - 1)]
    const sizes = await server.serve(Promise.all([first, second].map((target) => stat(path.join(target, 'file')))))
    expect(sizes.map(({ size }) => size)).toEqual([FILE_SIZE, FILE_SIZE])
    expect(new Set(server.seen.map(({ cookie }) => cookie))).toEqual(new Set([1, 2 ** 31 - 1]))
  })

  it.each([1, 4])('cannot starve the wake-up, with room for %i requests', async (rows) => {
    const target = start().mount(`busy${rows}`, 3)
    server.rows = rows
    await server.serve(stat(target))
    let running = true
    const clients = Promise.all(Array.from({ length: 4 }, async () => { while (running) await stat(path.join(target, 'file')) }))
    const busyStep = async (): Promise<Row[]> => {
      await new Promise((resolve) => setTimeout(resolve, 2)) // every client asks again meanwhile
      return server.step(20)
    }
    for (let i = 0; i < 5; i++) await busyStep()
    native().eventSignal(server.wakeUp) // a reply to the busy session is due, and its next request waits
    let found: Row | undefined
    for (let i = 0; i < 40 && found === undefined; i++) found = (await busyStep()).find(({ cookie }) => cookie === 9)
    running = false
    await server.serve(clients)
    expect(found).toEqual({ cookie: 9, fd: server.wakeUp, length: 0, opcode: -1 })
    expect(server.step(0)).toEqual([]) // it is delivered once
  })

  it('counts a refused reply and forgives one that nobody waits for', async () => {
    const target = start().mount('refused', 0)
    await server.serve(stat(target))
    const { fd } = server.seen[0]!
    server.reply(fd, { unique: [4711, 0] })
    server.step(0)
    expect(server.errors[0]).toBe(0) // ENOENT: interrupted, or answered before
    server.reply(-1, { unique: [4712, 0] })
    server.reply(fd, { unique: [4712, 0], error: 5 }) // a positive error
    server.step(0)
    expect(server.errors[0]).toBe(2)
  })

  it('is answered from anywhere by fuseReply', async () => {
    const target = start().mount('elsewhere', 0)
    await server.serve(stat(target))
    const { fd } = server.seen[0]!
    const header = outHeader.encode({ length: 16, error: -5, uniqueLow: 99, uniqueHigh: 0 })
    expect(native().fuseReply(fd, header, -1, 0, 0)).toBe(0)
    expect(native().fuseReply(fd, header, backingFd, 0, 100)).toBe(-22) // header's length says otherwise
    expect(native().fuseReply(fd, header.subarray(0, 8), backingFd, 0, 100)).toBe(-22)
    expect(native().fuseReply(-1, header, -1, 0, 0)).toBe(-9)
  })

  it('reports an unmount as ENODEV of that session, and goes on with the others', async () => {
    const [gone, stays] = [start().mount('gone', 5), server.mount('stays', 6)]
    await server.serve(Promise.all([stat(gone), stat(stays)]))
    const { fd } = server.seen.find(({ cookie }) => cookie === 5)!
    expect(native().umount(bytesOf(gone), MNT_DETACH)).toBe(0)
    let rows: Row[] = []
    for (let i = 0; i < 100 && !rows.some(({ length }) => length < 0); i++) rows = server.step(20)
    expect(rows.find(({ length }) => length < 0)).toEqual({ cookie: 5, fd, length: ENODEV, opcode: -1 })
    expect(native().waitSetRemove(server.set, fd)).toBe(0)
    expect((await server.serve(stat(path.join(stays, 'file')))).size).toBe(FILE_SIZE)
  })

  it('waits for as long as it is told', () => {
    start()
    const before = performance.now()
    expect(server.step(30)).toEqual([])
    expect(performance.now() - before).toBeGreaterThanOrEqual(29)
  })

  it('refuses buffers that no request fits into', () => {
    start()
    const run = ({ slot = SLOT, rows = 4, count = 0 }) => native().exchange(
      server.set, new Uint8Array(16), new Int32Array(7), count, new Uint8Array(SLOT), slot, new Int32Array(rows), 0, new Int32Array(1))
    expect(run({ slot: 8191 })).toBe(-22)
    expect(run({ slot: SLOT + 1 })).toBe(-22)
    expect(run({ rows: 3 })).toBe(-22)
    expect(run({ count: 2 })).toBe(-22)
    expect(run({})).toBe(0)
  })

  it('lets a worker that waits for ever end by its wake-up', async () => {
    start()
    const worker = new Worker(`
      const { workerData, parentPort } = require('node:worker_threads')
      const addon = require(workerData.addon)
      const requests = new Int32Array(4)
      parentPort.postMessage('waiting')
      const rows = addon.exchange(workerData.set, new Uint8Array(1), new Int32Array(0), 0, new Uint8Array(8192), 8192, requests, -1, new Int32Array(1))
      parentPort.postMessage([rows, ...requests])`,
    { eval: true, workerData: { addon: path.resolve(import.meta.dirname, '../../build/nydus.node'), set: server.set } })
    const messages: unknown[] = []
    worker.on('message', (message) => {
      messages.push(message)
      if (message === 'waiting') native().eventSignal(server.wakeUp)
    })
    expect(await new Promise((resolve) => worker.once('exit', resolve))).toBe(0)
    expect(messages).toEqual(['waiting', [1, 9, server.wakeUp, 0, 0]])
  })
})

// The loop with a scripted kernel: each exchange delivers what the script says and records the replies that came with it.

import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { native } from '../../native/load.ts'
import { readIn } from '../../wire/fuse/file.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import { createAccessMemory } from '../access/access-log.ts'
import { sharedClock } from '../clock.ts'
import { createCounterMemory, fsIoStats } from '../counters.ts'
import { ERRNO } from '../errno.ts'
import { FileSystemTable } from '../fuse/file-system-table.ts'
import type { Extents, ServedFileSystem } from '../fuse/served-file-system.ts'
import { S_IFREG } from '../../format/erofs/inode.ts'
import { type LoopEnvironment, serveLoop } from './loop.ts'
import { createLeadershipMemory } from './leadership.ts'
import { type FromWorker, type SharedFileSystem, type ToWorker, WAKE_UP } from './messages.ts'

const SESSION = 4
const FUSE_FD = 1000
const FILE_LENGTH = 10
const connection = { xattrs: true, writable: false, minor: 38, flags: 0, flags2: 0, maxReadahead: 0, zeroMessageOpens: false }

let directory: string
let file: number
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-loop-'))
  writeFileSync(path.join(directory, 'cache'), 'abcdefghij')
  file = openSync(path.join(directory, 'cache'), 'r')
})
afterAll(() => {
  closeSync(file)
  rmSync(directory, { recursive: true })
})

type Row = { wakeUp: true } | { ended: number } | { request: Uint8Array }

/** An image whose only file is its root: node id 1 reads. */
function imageOf(locate: (extents: Extents) => boolean): ServedFileSystem {
  const { fs } = new FileSystemTable().root
  const inode = { ...fs.view.inode(1), mode: S_IFREG | 0o644, size: 100 }
  return { ...fs, view: { ...fs.view, inode: () => inode }, locate: (_inode, _offset, _length, extents) => locate(extents) }
}

function readRequest(unique: number): Uint8Array {
  const body = readIn.encode({ handle: 0n, offsetLow: 0, offsetHigh: 0, size: 6, readFlags: 0, lockOwner: 0n, flags: 0 })
  return Buffer.concat([inHeader.encode({
    length: inHeader.size + body.length, opcode: FUSE_OP.READ, uniqueLow: unique, uniqueHigh: 0, nodeLow: 1, nodeHigh: 0, uid: 0, gid: 0, pid: 0, extensions: 0,
  }), body])
}

function play(image: ServedFileSystem, script: Row[][], messages: ToWorker[], { late = false, cold = false, meanwhile = (_exchange: number): ToWorker[] => [] } = {}): { posted: FromWorker[]; replies: Int32Array[]; outputs: Uint8Array[]; removed: number[]; led: boolean[]; closed: number; closedAfter: number } {
  const result = { posted: [] as FromWorker[], replies: [] as Int32Array[], outputs: [] as Uint8Array[], removed: [] as number[], led: [] as boolean[], closed: 0, closedAfter: 0 }
  const leadership = createLeadershipMemory()
  const inbox = late ? [] : [...messages]
  let exchanges = 0
  const keep = (rows: Int32Array, output: Uint8Array): void => {
    for (let at = 0; at < rows.length; at += 7) {
      result.replies.push(rows.slice(at, at + 7))
      result.outputs.push(output.slice(rows[at + 1]!, rows[at + 1]! + rows[at + 2]!))
    }
  }
  const fake: Partial<LoopEnvironment['native']> = {
    pread: (...args) => native().pread(...args),
    waitSetRemove: (_set, fd) => result.removed.push(fd),
    fuseReply: (fd, header, fileFd, offset, length) => {
      keep(Int32Array.of(fd, 0, header.length, fileFd, offset, 0, length), header)
      return 0
    },
    exchange(_set, output, replies, count, input, slot, requests, _timeout, errors) {
      result.led.push(new Int32Array(leadership)[0] === 1)
      if (cold && count > 0 && errors.length > 2) {
        errors[2] = count
        return 0
      }
      keep(replies.subarray(0, count * 7), output)
      for (let at = 0; at < count * 7; at += 7) {
        if (replies[at + 3]! < 0 || replies[at + 4]! + replies[at + 6]! <= FILE_LENGTH || replies[at + 5] !== 0) continue
        replies[at + 2] = 0
        errors[1]!++
      }
      if (late) inbox.push(...messages.splice(0))
      const rows = script.shift() ?? [{ wakeUp: true }]
      inbox.push(...meanwhile(++exchanges))
      if (script.length === 0) inbox.push({ kind: 'stop' })
      rows.forEach((row, i) => {
        const length = 'request' in row ? row.request.length : 'ended' in row ? -row.ended : 0
        if ('request' in row) input.set(row.request, i * slot)
        requests.set(['wakeUp' in row ? WAKE_UP : SESSION, FUSE_FD, i * slot, length], i * 4)
      })
      return rows.length
    },
  }
  serveLoop({
    // SAFETY: the loop uses these calls only.
    native: fake as LoopEnvironment['native'],
    start: { thread: 0, waitSet: 0, leadership, counters: createCounterMemory(1), accesses: createAccessMemory(1), mountsVersion, owner: { uid: 0, gid: 0 }, clock: sharedClock() },
    receive: () => inbox.shift(),
    post: (message) => result.posted.push(message),
    open: () => ({ ...image, close() { result.closed++; result.closedAfter = result.replies.length } }),
  })
  return result
}

const mountsVersion = new SharedArrayBuffer(4)
const counters = createCounterMemory(1)
// SAFETY: the loop hands it to `open`, which does not look at it.
const fileSystem = { kind: 'rafs' } as SharedFileSystem
const introduction: ToWorker[] = [
  { kind: 'session', session: SESSION, connection },
  { kind: 'mount', session: SESSION, serial: 2, steps: [], counters, fileSystem },
]

describe('the worker loop', () => {
  it('answers a hit by a header and a row that names the file bytes', () => {
    const { replies, outputs, closed } = play(imageOf((extents) => { extents.push(file, 2 ** 33 + 4096, 6); return true }), [[{ request: readRequest(9) }], [{ wakeUp: true }]], introduction)
    expect(replies.map((row) => [...row])).toEqual([[FUSE_FD, 0, outHeader.size, file, 4096, 2, 6]])
    expect(outHeader.decode(outputs[0]!)).toEqual({ length: outHeader.size + 6, error: 0, uniqueLow: 9, uniqueHigh: 0 })
    expect(fsIoStats(counters, '')).toMatchObject({ data_read: 6 })
    expect(closed).toBe(1)
  })

  it('puts several extents together', () => {
    const { replies, outputs } = play(imageOf((extents) => { extents.push(file, 0, 2); extents.push(file, 5, 4); return true }), [[{ request: readRequest(9) }], [{ wakeUp: true }]], introduction)
    expect(replies[0]![3]).toBe(-1)
    expect(Buffer.from(outputs[0]!.subarray(outHeader.size)).toString()).toBe('abfghi')
  })

  it('makes a miss of a read whose cache file is shorter than it should be, in several extents or in one, and answers nothing itself', () => {
    const several = play(imageOf((extents) => { extents.push(file, 0, 2); extents.push(file, 8, 4); return true }), [[{ request: readRequest(9) }], [{ wakeUp: true }]], introduction)
    const one = play(imageOf((extents) => { extents.push(file, 8, 6); return true }), [[{ request: readRequest(9) }], [], [{ wakeUp: true }]], introduction)
    for (const { posted } of [several, one]) expect(posted.filter(({ kind }) => kind !== 'wanted')).toMatchObject([{ kind: 'miss', session: SESSION, miss: { uniqueLow: 9, nid: 1, offset: 0, length: 6 } }])
    expect([several.replies.length, one.replies.length]).toEqual([0, 1]) // the scripted kernel refuses the one that it was given
  })

  it('hands the lead on before it waits for the disk, and takes it again afterwards', () => {
    const { posted, replies, outputs, led } = play(imageOf((extents) => { extents.push(file, 0, 6); return true }), [[{ request: readRequest(9) }], [], [{ wakeUp: true }]], introduction, { cold: true })
    expect(led).toEqual([true, true, false, true])
    expect(posted).toEqual([{ kind: 'wanted' }])
    expect(replies).toHaveLength(1)
    expect(outHeader.decode(outputs[0]!)).toMatchObject({ uniqueLow: 9, error: 0 })
  })

  it('hands a miss on and goes on with the next request', () => {
    let first = true
    const { posted, replies } = play(imageOf((extents) => {
      if (first) return first = false
      extents.push(file, 0, 6)
      return true
    }), [[{ request: readRequest(9) }, { request: readRequest(10) }], [{ wakeUp: true }]], introduction)
    expect(posted).toMatchObject([{ kind: 'miss', session: SESSION, miss: { uniqueLow: 9, serial: 2, nid: 1, offset: 0, length: 6 } }])
    expect(replies).toHaveLength(1)
  })

  it('learns of a session when its first request comes before the wake-up', () => {
    const { replies } = play(imageOf((extents) => { extents.push(file, 0, 6); return true }), [[{ request: readRequest(9) }], [{ wakeUp: true }]], [...introduction], { late: true })
    expect(replies).toHaveLength(1)
  })

  it('reports an unmounted session and stops waiting on it', () => {
    const { posted, removed } = play(imageOf(() => false), [[{ ended: ERRNO.ENODEV }], [{ wakeUp: true }]], introduction)
    expect(posted).toEqual([{ kind: 'ended', session: SESSION, errno: ERRNO.ENODEV }])
    expect(removed).toEqual([FUSE_FD])
  })

  it('lets go of a dropped session, and ignores what comes for it afterwards', () => {
    const { posted, closed, replies } = play(imageOf(() => false), [[{ wakeUp: true }], [{ request: readRequest(1) }], [{ wakeUp: true }]],
      [...introduction, { kind: 'drop-session', session: SESSION, fd: FUSE_FD }])
    expect(posted).toEqual([{ kind: 'dropped', session: SESSION }])
    expect([closed, replies.length]).toEqual([1, 0])
  })

  it('knows of a mount whose message came before the request, without a wake-up', () => {
    const image = imageOf((extents) => { extents.push(file, 0, 6); return true })
    const messages = [...introduction]
    const script: Row[][] = [[{ request: readRequest(9) }], [{ request: readRequest(10) }], [{ wakeUp: true }]]
    const { outputs } = play(image, script, messages.slice(0, 1), {
      meanwhile(exchange) {
        if (exchange !== 2) return []
        Atomics.add(new Int32Array(mountsVersion), 0, 1)
        return messages.splice(1)
      },
    })
    expect(outputs.map((bytes) => Math.abs(outHeader.decode(bytes).error))).toEqual([ERRNO.EINVAL, 0]) // a read of the pseudo directory, then of the mount
  })

  it('lets go of an unmounted file system after its last replies are written', () => {
    const image = imageOf((extents) => { extents.push(file, 0, 6); return true })
    const { posted, closedAfter, outputs } = play(image, [[{ request: readRequest(9) }, { wakeUp: true }], [{ request: readRequest(10) }], [{ wakeUp: true }]], introduction,
      { meanwhile: (exchange) => (exchange === 1 ? [{ kind: 'unmount', session: SESSION, serial: 2 }] : []) })
    expect(posted).toEqual([{ kind: 'unmounted', session: SESSION, serial: 2 }])
    expect(closedAfter).toBe(1)
    expect(outputs.map((bytes) => Math.abs(outHeader.decode(bytes).error))).toEqual([0, ERRNO.EINVAL])
  })
})

import { describe, expect, it } from 'vitest'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import type { Access } from './access-log.ts'
import { MountAccounts } from './accounts.ts'

const all = { files: true, pattern: true, latest: true }
const none = { files: false, pattern: false, latest: false }
const read = (nid: number, offset: number, length: number, over: Partial<Access> = {}): Access => ({ session: 1, serial: 1, nid, offset, length, opcode: FUSE_OP.READ, errno: 0, at: 5_000.25, ...over })

describe('MountAccounts', () => {
  it('counts operations by inode as upstream does', () => {
    const accounts = new MountAccounts(all)
    accounts.add(read(7, 0, 4096))
    accounts.add(read(7, 4096, 100))
    accounts.add(read(7, 0, 0, { opcode: FUSE_OP.GETATTR }))
    accounts.add(read(7, 0, 10, { errno: 5 }))
    expect(accounts.files()).toEqual({ 7: {
      total_fops: 4, data_read: 4196, block_count_read: [1, 0, 1, 0, 0, 0, 0, 0],
      fop_hits: [1, 0, 0, 0, 2, ...new Array(10).fill(0)], fop_errors: [0, 0, 0, 0, 1, ...new Array(10).fill(0)],
    } })
  })

  it('knows when a file was first read, and how often', () => {
    const accounts = new MountAccounts(all)
    accounts.add(read(7, 0, 1))
    accounts.add(read(7, 0, 1, { at: 9_000 }))
    accounts.add(read(9, 0, 0, { opcode: FUSE_OP.GETATTR }))
    expect(accounts.pattern()).toEqual([{ ino: 7, nr_read: 2, first_access_time_secs: 5, first_access_time_nanos: 250_000 }])
  })

  it('gives the files read lately as ranges of inodes, once', () => {
    const accounts = new MountAccounts(all)
    for (const nid of [12, 3, 10, 11, 4, 99]) accounts.add(read(nid, 0, 1))
    expect(accounts.takeLatest()).toEqual([[3, 4], [10, 12], [99]])
    expect(accounts.takeLatest()).toEqual([])
  })

  it('traces every part of a file in the order of its first read', () => {
    const accounts = new MountAccounts(none)
    expect(accounts.isWatching).toBe(false)
    accounts.add(read(1, 0, 10))
    accounts.startTrace(5_000)
    expect(accounts.isWatching).toBe(true)
    for (const [nid, offset, length] of [[1, 100, 50], [2, 0, 10], [1, 150, 50], [1, 120, 10], [1, 90, 200], [2, 0, 10], [3, 0, 5], [3, 5, 5]] as const) accounts.add(read(nid, offset, length))
    expect(accounts.trace()!.entries.map(({ nid, offset, length }) => [nid, offset, length])).toEqual([
      [1, 100, 50], [2, 0, 10], [1, 150, 50], [1, 90, 10], [1, 200, 90], [3, 0, 10]])
    accounts.stopTrace()
    expect(accounts.trace()).toBeUndefined()
    expect(accounts.isWatching).toBe(false)
  })
})

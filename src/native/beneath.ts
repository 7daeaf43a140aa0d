// Records that native/beneath.c fills: what is known of a file, and the entries of a directory.

import { bytes, dataViewOf, i32, struct, u32 } from '../core/struct.ts'

/** native/beneath.c asserts the same offsets. */
export const fileStatus = struct('FileStatus', 240, [
  [  0, 'attributes',   bytes(88), 'attributes: a struct fuse_attr'],
  [ 88, 'deviceMajor',  u32, 'device_major'],
  [ 92, 'deviceMinor',  u32, 'device_minor'],
  [ 96, 'mountLow',     u32, 'mount_low: id of the mount (STATX_MNT_ID), 0 before Linux 5.8'],
  [100, 'mountHigh',    u32, 'mount_high'],
  [104, 'handleType',   i32, 'handle_type'],
  [108, 'handleLength', u32, 'handle_length: 0 when the file system has no handles, or none was asked for'],
  [112, 'handle',       bytes(128), 'handle: bytes of a file handle (MAX_HANDLE_SZ)'],
])

const S = fileStatus.offsetOf
/** SPEC: linux fuse.h struct fuse_attr. */
const MODE = 60

/** A record that the addon fills again and again; fields are read where they are needed. */
export class FileStatus {
  /** What the addon is given. */
  readonly bytes = new Uint8Array(fileStatus.size)
  readonly view = dataViewOf(this.bytes)

  get mode(): number {
    return this.view.getUint32(MODE, true)
  }

  /** Bytes. */
  get size(): number {
    return this.view.getUint32(12, true) * 2 ** 32 + this.view.getUint32(8, true)
  }

  /** The inode's number, less what exceeds 2^53. */
  get inode(): number {
    return (this.view.getUint32(4, true) % 2 ** 21) * 2 ** 32 + this.view.getUint32(0, true)
  }

  /** When the inode was changed last, ms since the epoch. */
  get changedMs(): number {
    return (this.view.getInt32(44, true) * 2 ** 32 + this.view.getUint32(40, true)) * 1000 + Math.floor(this.view.getUint32(56, true) / 1e6)
  }

  /** Names the file system that the file is on. */
  get device(): number {
    return this.view.getUint32(S.deviceMajor, true) * 2 ** 20 + this.view.getUint32(S.deviceMinor, true)
  }

  /** Names the mount that it was found through. */
  get mount(): number {
    return this.view.getUint32(S.mountHigh, true) * 2 ** 32 + this.view.getUint32(S.mountLow, true)
  }

  get handleType(): number {
    return this.view.getInt32(S.handleType, true)
  }

  /** The file handle, a view; empty when there is none. */
  get handle(): Uint8Array {
    return this.bytes.subarray(S.handle, S.handle + this.view.getUint32(S.handleLength, true))
  }
}

/** SPEC: getdents(2) struct linux_dirent64: d_ino, d_off, d_reclen, d_type, then the name and a NUL. */
const ENTRY = { next: 8, length: 16, type: 18, name: 19 } as const

/** One entry: reused, valid until the next one. `name` is a byte string; the cookie is where reading goes on behind it. */
export interface DirectoryEntry { inoLow: number; inoHigh: number; cookieLow: number; cookieHigh: number; type: number; name: string }

/** The records of `buffer` between `at` and `end`, which `readDirectory` filled. */
export function* directoryRecords(buffer: Buffer, at: number, end: number): Generator<DirectoryEntry> {
  const entry: DirectoryEntry = { inoLow: 0, inoHigh: 0, cookieLow: 0, cookieHigh: 0, type: 0, name: '' }
  while (at < end) {
    const stop = at + buffer.readUInt16LE(at + ENTRY.length)
    entry.inoLow = buffer.readUInt32LE(at)
    entry.inoHigh = buffer.readUInt32LE(at + 4)
    entry.cookieLow = buffer.readUInt32LE(at + ENTRY.next)
    entry.cookieHigh = buffer.readUInt32LE(at + ENTRY.next + 4)
    entry.type = buffer[at + ENTRY.type]!
    entry.name = buffer.toString('latin1', at + ENTRY.name, buffer.indexOf(0, at + ENTRY.name))
    yield entry
    at = stop
  }
}

// A file system under test, however it is reached: mounted, or read from the image. Paths and names are byte strings.

import { createHash } from 'node:crypto'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { byteString, bytesOf } from '../../core/byte-string.ts'
import { MiB } from '../../core/units.ts'
import { decodeDevice, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { readXattrs } from '../../native/file.ts'
import { type RafsImage, resolvePath } from '../../rafs/index.ts'

/** One file as it is shown. `mode` has its type bits, `mtime` is in seconds. */
export interface ShownFile {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly rdevMajor: number
  readonly rdevMinor: number
  readonly link: string
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[]
}

export interface FileTree {
  /** How it is reached, for the report. */
  readonly how: string
  /** Names in a directory, without `.` and `..`. */
  list(path: string): Promise<string[]>
  stat(path: string): Promise<ShownFile>
  /** Hex sha256 of a regular file. */
  digest(path: string, options: { readonly signal: AbortSignal }): Promise<string>
}

const READ_SIZE = MiB

/** What a mount at `root` (ordinary text) shows. */
export class MountedTree implements FileTree {
  readonly how = 'mounted'
  readonly #root: string

  constructor(root: string) {
    this.#root = byteString(Buffer.from(root))
  }

  async list(path: string): Promise<string[]> {
    return (await readdir(this.#bytes(path), { encoding: 'buffer' })).map(byteString)
  }

  async stat(path: string): Promise<ShownFile> {
    const { mode, uid, gid, size, mtimeMs, rdev } = await lstat(this.#bytes(path))
    const link = (mode & S_IFMT) === S_IFLNK ? byteString(await readlink(this.#bytes(path), { encoding: 'buffer' })) : ''
    const [major, minor] = decodeDevice(rdev)
    return { mode, uid, gid, size, mtime: Math.floor(mtimeMs / 1000), rdevMajor: major, rdevMinor: minor, link, xattrs: readXattrs(`${this.#root}${path}`) }
  }

  async digest(path: string, { signal }: { readonly signal: AbortSignal }): Promise<string> {
    const file = await open(this.#bytes(path), 'r')
    try {
      const { size } = await file.stat()
      return await digestOfReads(size, signal, async (offset, buffer) => (await file.read(buffer, 0, buffer.length, offset)).bytesRead)
    } finally {
      await file.close()
    }
  }

  #bytes(path: string): Buffer {
    return bytesOf(`${this.#root}${path}`)
  }
}

/** What our own reader finds in the image, for machines that cannot mount. */
export class ReadTree implements FileTree {
  readonly how = 'read from the image by our own reader, without a mount'
  readonly #image: RafsImage

  constructor(image: RafsImage) {
    this.#image = image
  }

  async list(path: string): Promise<string[]> {
    return [...this.#image.view.entries(this.#inode(path))].map(({ name }) => name).filter((name) => name !== '.' && name !== '..')
  }

  async stat(path: string): Promise<ShownFile> {
    const { view } = this.#image
    const inode = this.#inode(path)
    const [major, minor] = decodeDevice(inode.rdev)
    const link = (inode.mode & S_IFMT) === S_IFLNK ? byteString(view.readlink(inode)) : ''
    const { mode, uid, gid, size, mtime } = inode
    return { mode, uid, gid, size, mtime, rdevMajor: major, rdevMinor: minor, link, xattrs: view.xattrs(inode) }
  }

  async digest(path: string, { signal }: { readonly signal: AbortSignal }): Promise<string> {
    const inode = this.#inode(path)
    return digestOfReads(inode.size, signal, (offset, buffer) => this.#image.readInto(inode, offset, buffer, { signal }))
  }

  #inode(path: string): Inode {
    return resolvePath(this.#image.view, path, { followLinks: false })
  }
}

async function digestOfReads(size: number, signal: AbortSignal, read: (offset: number, buffer: Buffer) => Promise<number>): Promise<string> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, Math.max(size, 1)))
  for (let offset = 0; offset < size;) {
    signal.throwIfAborted()
    const length = await read(offset, buffer.subarray(0, Math.min(buffer.length, size - offset)))
    if (length === 0) break
    hash.update(buffer.subarray(0, length))
    offset += length
  }
  return hash.digest('hex')
}

/** Whether a mode is a regular file's. */
export function isRegular(mode: number): boolean {
  return (mode & S_IFMT) === S_IFREG
}

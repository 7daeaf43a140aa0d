// An opened image as files: what node:fs offers for reading, without a mount and without root.

import { constants } from 'node:buffer'
import { Readable } from 'node:stream'
import { byteString, bytesOf, fromText, toText } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../format/erofs/inode.ts'
import type { Inode } from '../format/rafs-v6/bootstrap-view.ts'
import { type RafsImage, resolvePath } from '../rafs/index.ts'
import { signalOf } from './places.ts'

/** A path in the image: text, or bytes where a name is no UTF-8. Relative paths begin at the root. */
export type ImagePath = string | Uint8Array

/** What a file is. Sizes are bytes, `mode` has the type bits. */
export interface FileStat {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly nlink: number
  readonly ino: number
  readonly rdev: number
  readonly mtimeMs: number
  isFile(): boolean
  isDirectory(): boolean
  isSymbolicLink(): boolean
}

export interface ReadFileOptions {
  /** Bytes; default from the start to the end of the file. */
  readonly start?: number | undefined
  /** Exclusive. */
  readonly end?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** Bytes fetched for a stream at a time. */
const STREAM_PIECE = MiB

/**
 * Files of one image. Names come as strings (bytes that are no UTF-8 are shown as \xNN) or, asked for, as Buffers. Every byte is verified before
 * it is returned. Codes: RAFS_NOT_FOUND, RAFS_NOT_DIRECTORY, RAFS_IS_DIRECTORY, RAFS_NOT_SYMLINK, RAFS_LOOP, RAFS_NO_XATTR; STORAGE_*; FORMAT_*.
 */
export class ImageFiles implements AsyncDisposable {
  readonly #image: RafsImage
  readonly #closed = new AbortController()

  constructor(image: RafsImage) {
    this.#image = image
  }

  /** Follows a link at the end of the path. */
  async stat(path: ImagePath): Promise<FileStat> {
    return statOf(this.#resolve(path, true))
  }

  async lstat(path: ImagePath): Promise<FileStat> {
    return statOf(this.#resolve(path, false))
  }

  /** Names in a directory, sorted by their bytes. */
  async readdir(path: ImagePath): Promise<string[]>
  async readdir(path: ImagePath, options: { readonly encoding: 'buffer' }): Promise<Buffer[]>
  async readdir(path: ImagePath, options?: { readonly encoding: 'buffer' }): Promise<string[] | Buffer[]> {
    const inode = this.#resolve(path, true)
    if ((inode.mode & S_IFMT) !== S_IFDIR) throw new CodedError('RAFS_NOT_DIRECTORY', `${shown(path)} is not a directory`, { path: shown(path) })
    const names = [...this.#image.view.entries(inode)].map(({ name }) => name).filter((name) => name !== '.' && name !== '..').sort()
    return options === undefined ? names.map(toText) : names.map(bytesOf)
  }

  async readlink(path: ImagePath): Promise<string>
  async readlink(path: ImagePath, options: { readonly encoding: 'buffer' }): Promise<Buffer>
  async readlink(path: ImagePath, options?: { readonly encoding: 'buffer' }): Promise<string | Buffer> {
    const inode = this.#resolve(path, false)
    if ((inode.mode & S_IFMT) !== S_IFLNK) throw new CodedError('RAFS_NOT_SYMLINK', `${shown(path)} is not a symbolic link`, { path: shown(path) })
    const target = Buffer.from(this.#image.view.readlink(inode))
    return options === undefined ? toText(byteString(target)) : target
  }

  /** Names of extended attributes. A link at the end of the path is not followed. */
  async listXattrs(path: ImagePath): Promise<string[]> {
    return this.#image.view.xattrs(this.#resolve(path, false)).map(([name]) => toText(name))
  }

  async getXattr(path: ImagePath, name: string): Promise<Buffer> {
    const value = this.#image.view.xattr(this.#resolve(path, false), fromText(name))
    if (value === undefined) throw new CodedError('RAFS_NO_XATTR', `${shown(path)} has no attribute ${name}`, { path: shown(path), name })
    return Buffer.from(value)
  }

  /** A file's bytes; fetches what they need and nothing else. FORMAT_OUT_OF_RANGE for more than fits a Buffer. */
  async readFile(path: ImagePath, options: ReadFileOptions = {}): Promise<Buffer> {
    const { inode, start, length, signal } = this.#open(path, options)
    if (length > constants.MAX_LENGTH) throw new CodedError('FORMAT_OUT_OF_RANGE', `${shown(path)} has ${length} bytes: read it as a stream`, { length })
    const pieces: Buffer[] = []
    // piece by piece: a size that an image claims is allocated only as far as there is data behind it
    for await (const piece of this.#pieces(inode, { start, length, signal })) pieces.push(piece)
    return Buffer.concat(pieces)
  }

  /** The same as a stream. Destroying it ends what is being fetched. */
  createReadStream(path: ImagePath, options: ReadFileOptions = {}): Readable {
    const ended = new AbortController()
    const files = this
    const stream = Readable.from((async function* () {
      const { inode, start, length, signal } = files.#open(path, options)
      yield* files.#pieces(inode, { start, length, signal: AbortSignal.any([signal, ended.signal]) })
    })(), { objectMode: false })
    stream.once('close', () => ended.abort())
    return stream
  }

  /** Ends reads under way, frees files, mappings and connections. */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return
    this.#closed.abort(new CodedError('SERVE_STATE', 'the image is closed'))
    await this.#image.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #resolve(path: ImagePath, followLinks: boolean): Inode {
    this.#closed.signal.throwIfAborted()
    return resolvePath(this.#image.view, typeof path === 'string' ? fromText(path) : byteString(path), { followLinks })
  }

  #open(path: ImagePath, { start = 0, end, signal }: ReadFileOptions): { inode: Inode; start: number; length: number; signal: AbortSignal } {
    const inode = this.#resolve(path, true)
    if ((inode.mode & S_IFMT) === S_IFDIR) throw new CodedError('RAFS_IS_DIRECTORY', `${shown(path)} is a directory`, { path: shown(path) })
    if ((inode.mode & S_IFMT) !== S_IFREG) throw new CodedError('RAFS_NOT_FOUND', `${shown(path)} is no regular file: it has no content`, { path: shown(path) })
    const length = Math.max(0, Math.min(end ?? inode.size, inode.size) - start)
    return { inode, start, length, signal: AbortSignal.any([signalOf(signal), this.#closed.signal]) }
  }

  async *#pieces(inode: Inode, { start, length, signal }: { start: number; length: number; signal: AbortSignal }): AsyncGenerator<Buffer, void, undefined> {
    for (let done = 0; done < length;) {
      const piece = Buffer.allocUnsafe(Math.min(STREAM_PIECE, length - done))
      const got = await this.#image.readInto(inode, start + done, piece, { signal })
      if (got === 0) return
      done += got
      yield piece.subarray(0, got)
    }
  }
}

function statOf({ mode, uid, gid, size, nlink, ino, rdev, mtime, mtimeNsec }: Inode): FileStat {
  const is = (type: number) => () => (mode & S_IFMT) === type
  return { mode, uid, gid, size, nlink, ino, rdev, mtimeMs: mtime * 1000 + mtimeNsec / 1e6, isFile: is(S_IFREG), isDirectory: is(S_IFDIR), isSymbolicLink: is(S_IFLNK) }
}

function shown(path: ImagePath): string {
  return typeof path === 'string' ? path : toText(byteString(path))
}

// The work directory: finished layers, kept until the image is complete, and nothing else that survives its process.
// Several jobs may share one. Each holds a shared lock on `layers`; whoever gets it exclusively is alone and may remove things.
//
//   WORK/.nydusify           marker: this directory was made by us, and is ours to remove
//   WORK/layers/KEY          packed layer, complete (renamed into place)
//   WORK/layers/KEY.json     its record: digest, size, and a seal over the record itself
//   WORK/layers/.nydus-tmp-* being written by a live process; swept when its lock is free
//   WORK/scratch-*           a directory of one job for whatever it likes; swept likewise

import { createHash, randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { CodedError } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import { asDigest, type Digest } from '../format/oci/digest.ts'
import { native } from '../native/load.ts'
import { sweepTempFiles, TempFile } from '../registry/index.ts'

const MARKER = '.nydusify'
const LAYERS = 'layers'
const SCRATCH = 'scratch-'
const LOCK_SHARED_NOW = 1 | 4
const LOCK_EXCLUSIVE_NOW = 2 | 4
/** LIMIT: between making a directory and locking it. */
const SCRATCH_GRACE_MS = 2000
/** Bytes read at a time when a finished layer is checked. */
const READ_SIZE = MiB

/** An open packed layer: it can be read although another job removes its name. Dispose it. */
export interface LayerFile extends AsyncDisposable {
  readonly digest: Digest
  readonly size: number
  /** Exactly `length` bytes from `offset`. */
  readAt(offset: number, length: number): Promise<Uint8Array>
  /** The same into `buffer`, all of it, which is returned. */
  readInto(buffer: Uint8Array, offset: number): Promise<Uint8Array>
}

/** See `WorkDirectory.scratch`. */
export interface Scratch extends AsyncDisposable { readonly path: string }

/** Owns a share of the directory. */
export class WorkDirectory implements AsyncDisposable {
  readonly path: string
  /** `layers`, open and locked (shared) for as long as this job lives. */
  readonly #lock: FileHandle
  readonly #layers: string
  readonly #used = new Set<string>()

  private constructor(directory: string, lock: FileHandle) {
    this.path = directory
    this.#lock = lock
    this.#layers = path.join(directory, LAYERS)
  }

  /** Creates it when it is missing; clears what dead jobs left. REGISTRY_STORE when it cannot be written. */
  static async open(directory: string): Promise<WorkDirectory> {
    const target = path.resolve(directory)
    try {
      const work = new WorkDirectory(target, await openShared(target))
      await sweepTempFiles(work.#layers)
      await sweepTempFiles(target)
      await sweepScratch(target)
      return work
    } catch (error) {
      throw new CodedError('REGISTRY_STORE', `work directory ${target} cannot be used`, { path: target }, { cause: error })
    }
  }

  /** A directory for this job alone; disposed, it is gone, and after kill -9 the next job removes it. */
  async scratch(): Promise<Scratch> {
    const name = path.join(this.path, `${SCRATCH}${randomUUID()}`)
    await mkdir(name)
    const lock = await open(name, 'r')
    native().flock(lock.fd, LOCK_EXCLUSIVE_NOW)
    return { path: name, [Symbol.asyncDispose]: async () => {
      await rm(name, { recursive: true, force: true })
      await lock.close()
    } }
  }

  /** The finished layer called `key`, checked against its recorded digest; undefined when there is none, or it is damaged (then it is removed). */
  async find(key: string, { signal }: { signal: AbortSignal }): Promise<LayerFile | undefined> {
    const name = path.join(this.#layers, key)
    const record = await readRecord(`${name}.json`)
    if (record !== undefined) {
      const file = await OpenLayer.open(name, record)
      if (file !== undefined && await file.isIntact(signal)) {
        this.#used.add(key)
        return file
      }
      await file?.[Symbol.asyncDispose]()
    }
    await this.#remove(key)
    return undefined
  }

  /** A new layer: `write` fills it, then it is kept as `key`. When `write` throws, nothing is kept. */
  async create(key: string, write: (append: (chunk: Uint8Array) => Promise<void>) => Promise<void>): Promise<LayerFile> {
    const name = path.join(this.#layers, key)
    await using temp = await TempFile.create(this.#layers)
    const hash = createHash('sha256')
    await write(async (chunk) => {
      hash.update(chunk)
      await temp.append(chunk)
    })
    const record: LayerRecord = { digest: `sha256:${hash.digest('hex')}`, size: temp.size }
    // opened before it has a name: another job that finishes may remove the name at once
    const file = await OpenLayer.open(temp.path, record)
    if (file === undefined) throw new CodedError('REGISTRY_STORE', `${name} has vanished while it was written`)
    // 1. content, durable, 2. record: a record without its content is found out by `find`
    await temp.commit(name)
    await using recordFile = await TempFile.create(this.#layers)
    await recordFile.append(Buffer.from(sealed(record)))
    await recordFile.commit(`${name}.json`)
    this.#used.add(key)
    return file
  }

  /** After a complete image: the layers of this job have done their duty. */
  async clear(): Promise<void> {
    for (const key of this.#used) await this.#remove(key)
  }

  /** The share is given back; finished layers stay. The last job takes an empty `layers` with it, and the directory if it was made by us. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (native().flock(this.#lock.fd, LOCK_EXCLUSIVE_NOW) < 0) return
      await rmdir(this.#layers)
      if (await exists(path.join(this.path, MARKER))) await rm(this.path, { recursive: true, force: true })
    } catch (error) {
      if (!hasErrno(error, 'ENOTEMPTY', 'ENOENT')) throw error // there are finished layers: another run will want them
    } finally {
      await this.#lock.close()
    }
  }

  async #remove(key: string): Promise<void> {
    for (const name of [`${key}.json`, key]) await rm(path.join(this.#layers, name), { force: true })
  }
}

interface LayerRecord { readonly digest: Digest; readonly size: number }

class OpenLayer implements LayerFile {
  readonly digest: Digest
  readonly size: number
  readonly #file: FileHandle

  private constructor(file: FileHandle, { digest, size }: LayerRecord) {
    this.#file = file
    this.digest = digest
    this.size = size
  }

  static async open(name: string, record: LayerRecord): Promise<OpenLayer | undefined> {
    try {
      return new OpenLayer(await open(name, 'r'), record)
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined
      throw error
    }
  }

  readAt(offset: number, length: number): Promise<Uint8Array> {
    return this.readInto(Buffer.allocUnsafe(length), offset)
  }

  async readInto(buffer: Uint8Array, offset: number): Promise<Uint8Array> {
    for (let done = 0; done < buffer.length; ) {
      const { bytesRead } = await this.#file.read(buffer, done, buffer.length - done, offset + done)
      if (bytesRead === 0) throw new CodedError('REGISTRY_STORE', `finished layer ${this.digest} ends at byte ${offset + done}`)
      done += bytesRead
    }
    return buffer
  }

  async isIntact(signal: AbortSignal): Promise<boolean> {
    if ((await this.#file.stat()).size !== this.size) return false
    const hash = createHash('sha256')
    for await (const piece of layerPieces(this, { offset: 0, length: this.size })) {
      signal.throwIfAborted()
      hash.update(piece)
    }
    return `sha256:${hash.digest('hex')}` === this.digest
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/**
 * The pieces of a layer file, for a push. Each is good until the next but one is asked for: HTTP clients ask for the next when they have handed
 * the last one to the socket, and for the one after that when it is gone. (New buffers would make V8 collect every 32 MiB.)
 */
export async function* layerPieces(file: LayerFile, { offset, length }: { offset: number; length: number }): AsyncGenerator<Uint8Array, void, undefined> {
  const size = Math.min(READ_SIZE, length)
  const buffers = [Buffer.allocUnsafeSlow(size), Buffer.allocUnsafeSlow(size)]
  for (let at = offset; at < offset + length; at += READ_SIZE) {
    const buffer = buffers.reverse()[0]!
    yield await file.readInto(buffer.subarray(0, Math.min(READ_SIZE, offset + length - at)), at)
  }
}

/** Makes what is missing of the directory and takes a share of it. Only a directory that was not there before us gets the marker. */
async function openShared(directory: string): Promise<FileHandle> {
  const layers = path.join(directory, LAYERS)
  for (;;) {
    if (await mkdir(directory, { recursive: true }) !== undefined) await writeFile(path.join(directory, MARKER), '')
    try {
      await mkdir(layers, { recursive: true })
      const lock = await open(layers, 'r')
      // the last job may have removed the directory between the steps: then start again
      if (native().flock(lock.fd, LOCK_SHARED_NOW) === 0 && (await lock.stat()).ino === (await stat(layers)).ino) return lock
      await lock.close()
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error
    }
  }
}

/** Removes the scratch directories of jobs that died. One that is just being made is not locked yet: young ones stay. */
async function sweepScratch(directory: string): Promise<void> {
  for (const entry of await readdir(directory)) {
    if (!entry.startsWith(SCRATCH)) continue
    const name = path.join(directory, entry)
    const lock = await open(name, 'r').catch(() => undefined)
    if (lock === undefined) continue
    const age = Date.now() - (await lock.stat()).ctimeMs
    if (native().flock(lock.fd, LOCK_EXCLUSIVE_NOW) === 0 && age > SCRATCH_GRACE_MS) await rm(name, { recursive: true, force: true })
    await lock.close()
  }
}

async function exists(name: string): Promise<boolean> {
  return stat(name).then(() => true, () => false)
}

function sealed(record: LayerRecord): string {
  return JSON.stringify({ ...record, seal: sealOf(record) })
}

function sealOf({ digest, size }: LayerRecord): string {
  return createHash('sha256').update(`nydusify layer ${digest} ${size}`).digest('hex')
}

/** The record, or undefined when it is missing or not whole. */
async function readRecord(name: string): Promise<LayerRecord | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(name, 'utf8'))
    if (typeof value !== 'object' || value === null || !('digest' in value) || !('size' in value) || !('seal' in value)) return undefined
    const { digest, size, seal } = value
    if (typeof digest !== 'string' || typeof size !== 'number') return undefined
    const record = { digest: asDigest(digest), size }
    return sealOf(record) === seal ? record : undefined
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || error instanceof SyntaxError || error instanceof CodedError) return undefined
    throw error
  }
}

function hasErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}

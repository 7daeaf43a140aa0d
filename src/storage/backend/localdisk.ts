// Blobs on a disk or in an image of one: a partition for each (GPT), or the whole disk as the only blob.
// SPEC: spec-surface.md B.3 backend.localdisk. COMPAT: a partition's name and GUID are the two halves of a blob id; basic data partitions have the
// first half alone (nydus storage/src/backend/localdisk.rs).

import { open, readFile, type FileHandle } from 'node:fs/promises'
import { CodedError } from '../../core/errors.ts'
import { GPT_SECTOR, readGptHeader, readGptPartitions, type GptPartition } from '../../format/gpt/table.ts'
import { errnoOf } from '../errno.ts'
import { newBuffer, type BlobBackend, type BlobReader } from './backend.ts'
import { readFully, shortRead } from './localfs.ts'

export interface LocaldiskOptions {
  /** A block device or a file. */
  readonly devicePath: string
  /** The whole disk is one blob, whatever its id. */
  readonly disableGpt: boolean
}

/** Digits of a blob id that a partition of the old kind tells. */
const SHORT_ID = 32

interface Disk { readonly file: FileHandle; readonly size: number; readonly partitions: readonly GptPartition[] }

/** One open disk; its table is read at the first read and then kept, for partitions of served images do not move. */
export class LocaldiskBackend implements BlobBackend {
  readonly type = 'localdisk'
  readonly isLocal = true
  readonly #options: LocaldiskOptions
  #disk: Promise<Disk> | undefined

  constructor(options: LocaldiskOptions) {
    this.#options = options
  }

  open(blobId: string): BlobReader {
    return {
      size: async ({ signal }) => {
        signal.throwIfAborted()
        return (await this.#place(blobId)).length
      },
      read: async (offset, length, { signal, allocate = newBuffer }) => {
        signal.throwIfAborted()
        const place = await this.#place(blobId)
        if (offset + length > place.length) throw shortRead(blobId, offset, length) // before allocating: `length` may come from a hostile bootstrap
        const bytes = allocate(length)
        await readFully(place.file, bytes, { position: place.offset + offset, blobId })
        signal.throwIfAborted()
        return bytes
      },
    }
  }

  async close(): Promise<void> {
    const disk = await this.#disk?.catch(() => undefined)
    this.#disk = undefined
    await disk?.file.close()
  }

  async #place(blobId: string): Promise<{ readonly file: FileHandle; readonly offset: number; readonly length: number }> {
    this.#disk ??= openDisk(this.#options)
    const opening = this.#disk
    opening.catch(() => { if (this.#disk === opening) this.#disk = undefined }) // it may be attached later
    const { file, size, partitions } = await opening
    if (this.#options.disableGpt) return { file, offset: 0, length: size }
    const found = partitions.find(({ name, isShort }) => name === (isShort ? blobId.slice(0, SHORT_ID) : blobId))
    if (found === undefined) throw new CodedError('STORAGE_NOT_FOUND', `no partition of ${this.#options.devicePath} holds blob ${blobId}`, { blobId })
    return { file, offset: found.offset, length: found.length }
  }
}

async function openDisk({ devicePath, disableGpt }: LocaldiskOptions): Promise<Disk> {
  const file = await open(devicePath, 'r').catch((error: unknown) => {
    const errno = errnoOf(error)
    const code = errno === 'ENOENT' ? 'STORAGE_NOT_FOUND' : errno === 'EACCES' || errno === 'EPERM' ? 'STORAGE_DENIED' : 'STORAGE_UNREACHABLE'
    throw new CodedError(code, `cannot open the disk ${devicePath}: ${errno}`, { devicePath }, { cause: error })
  })
  try {
    const size = await sizeOf(file)
    return { file, size, partitions: disableGpt ? [] : await partitionsOf(file, size, devicePath) }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** The table's backup at the end of the disk counts when the first one is damaged. SPEC: UEFI 5.3.2. */
async function partitionsOf(file: FileHandle, size: number, devicePath: string): Promise<GptPartition[]> {
  const blobId = devicePath // for messages
  const tableAt = async (position: number): Promise<GptPartition[]> => {
    const sector = Buffer.alloc(GPT_SECTOR)
    await readFully(file, sector, { position, blobId })
    const { offset, length, header } = readGptHeader(sector)
    if (offset + length > size) throw new CodedError('FORMAT_TRUNCATED', `the partition table of ${devicePath} runs past its end`)
    const entries = Buffer.alloc(length)
    await readFully(file, entries, { position: offset, blobId })
    return readGptPartitions(header, entries, size)
  }
  try {
    return await tableAt(GPT_SECTOR)
  } catch (error) {
    return await tableAt(Math.max(0, size - GPT_SECTOR)).catch(() => { throw error }) // of two refusals the first table's says more
  }
}

/** Bytes of a file or a block device, whose own `size` is 0. SPEC: Documentation/ABI/stable/sysfs-block: `size` is in units of 512 bytes. */
async function sizeOf(file: FileHandle): Promise<number> {
  const stat = await file.stat()
  if (!stat.isBlockDevice()) return stat.size
  const major = Math.floor(stat.rdev / 2 ** 8) & 0xfff
  const minor = (stat.rdev & 0xff) | (Math.floor(stat.rdev / 2 ** 12) & 0xfff00)
  return Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512
}

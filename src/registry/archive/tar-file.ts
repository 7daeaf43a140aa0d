// A tar archive as a file of named, seekable members: scanned once by its headers, read anywhere afterwards.

import { open, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { KiB, roundUp } from '../../core/units.ts'
import type { TarEntry } from '../../format/tar/entry.ts'
import { BLOCK_SIZE } from '../../format/tar/header.ts'
import { TarReader } from '../../format/tar/reader.ts'
import { readSpan } from '../spool.ts'
import { storing } from '../store-error.ts'

/** LIMIT: an image archive has a few members a layer; this bounds what a hostile one costs in memory. */
const MAX_MEMBERS = 100_000
const SCAN_SIZE = 64 * KiB
/** Members larger than this are leapt over instead of read. */
const LEAP_SIZE = 256 * KiB

export interface Member { readonly offset: number; readonly size: number }

/** Owns the descriptor. Symbolic and hard links lead to what they name. */
export class TarFile implements AsyncDisposable {
  readonly path: string
  readonly #file: FileHandle
  readonly #members: ReadonlyMap<string, Member>

  private constructor(file: string, handle: FileHandle, members: ReadonlyMap<string, Member>) {
    this.path = file
    this.#file = handle
    this.#members = members
  }

  /** REGISTRY_NOT_FOUND, REGISTRY_STORE (not a file, compressed), TAR_*. */
  static async open(file: string, { signal }: { signal: AbortSignal }): Promise<TarFile> {
    const handle = await storing(file, async () => {
      try {
        return await open(file, 'r')
      } catch (error) {
        if (isSystemError(error, 'ENOENT')) throw new CodedError('REGISTRY_NOT_FOUND', `no archive ${file}`, { file })
        throw error
      }
    })
    try {
      await refuseCompressed(handle, file)
      return new TarFile(file, handle, await scan(handle, signal))
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  member(name: string): Member | undefined {
    return this.#members.get(name)
  }

  /** Bytes of a member, `range` clamped to it. REGISTRY_NOT_FOUND. */
  read(name: string, range: { readonly offset: number; readonly length: number }): AsyncGenerator<Uint8Array, void, undefined> {
    const member = this.#members.get(name)
    if (member === undefined) throw new CodedError('REGISTRY_NOT_FOUND', `${this.path} has no member ${name}`, { name })
    const length = Math.max(0, Math.min(range.length, member.size - range.offset))
    return readSpan(this.#file, { offset: member.offset + range.offset, length })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

async function refuseCompressed(handle: FileHandle, file: string): Promise<void> {
  const head = Buffer.alloc(4)
  await storing(file, () => handle.read(head, 0, 4, 0))
  const packing = head.readUInt16BE(0) === 0x1f8b ? 'gzip' : head.readUInt32LE(0) === 0xfd2fb528 ? 'zstd' : undefined
  if (packing !== undefined) throw new CodedError('REGISTRY_STORE', `${file} is compressed with ${packing}: decompress it first, blobs are read in place`, { packing })
}

/** Reads headers only: behind each large member a fresh reader begins at the next header. */
async function scan(handle: FileHandle, signal: AbortSignal): Promise<Map<string, Member>> {
  const members = new Map<string, Member>()
  const links: [from: string, to: string][] = []
  const buffer = Buffer.alloc(SCAN_SIZE)
  let base: number | undefined = 0
  while (base !== undefined) base = await scanFrom(handle, base, { buffer, members, links, signal })
  // a link may name another: as many rounds as there can be steps, ended when one changes nothing
  for (let changed = true; changed; ) {
    changed = false
    for (const [from, to] of links) {
      const target = members.get(to)
      if (target === undefined || members.has(from)) continue
      members.set(from, target)
      changed = true
    }
  }
  return members
}

interface Scan {
  readonly buffer: Buffer
  readonly members: Map<string, Member>
  readonly links: [from: string, to: string][]
  readonly signal: AbortSignal
}

/** Scans from `base`; where to go on, or undefined at the end of the archive. */
async function scanFrom(handle: FileHandle, base: number, { buffer, members, links, signal }: Scan): Promise<number | undefined> {
  const reader = new TarReader()
  let position = base
  for (;;) {
    signal.throwIfAborted()
    const { bytesRead } = await storing('archive', () => handle.read(buffer, 0, buffer.length, position))
    if (bytesRead === 0) reader.finish()
    else reader.push(buffer.subarray(0, bytesRead))
    position += bytesRead
    for (let event = reader.next(); event !== undefined; event = reader.next()) {
      if (event.type === 'end') return undefined
      if (event.type !== 'entry') continue
      const { entry } = event
      if (members.size + links.length >= MAX_MEMBERS) throw new CodedError('REGISTRY_STORE', `archive has more than ${MAX_MEMBERS} members`)
      if (entry.type === 'file' && entry.sparse === undefined) members.set(entry.path, { offset: base + entry.dataOffset, size: entry.size })
      else if (entry.type === 'hardlink' || entry.type === 'symlink') links.push([entry.path, linkTarget(entry)])
      if (entry.type === 'file' && entry.size > LEAP_SIZE) return base + entry.dataOffset + roundUp(entry.size, BLOCK_SIZE)
    }
  }
}

/** Old docker writes `LAYER/layer.tar → ../OTHER/layer.tar`. Names stay names inside the archive: nothing is ever opened by them. */
function linkTarget(entry: TarEntry): string {
  if (entry.type === 'hardlink') return entry.link
  return path.posix.join(path.posix.dirname(entry.path), entry.link)
}

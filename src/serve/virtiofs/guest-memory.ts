// A virtual machine's memory, as its monitor shares it: regions of files, mapped here. Addresses come from the guest and are never trusted.

import { closeSync } from 'node:fs'
import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import type { NativeAddon } from '../../native/addon.ts'
import { native } from '../../native/load.ts'
import { outHeader } from '../../wire/fuse/header.ts'
import type { MemoryRegion } from '../../wire/vhost-user/message.ts'
import type { Extents } from '../fuse/served-file-system.ts'

/** LIMIT: regions that a front end may have at once; QEMU has a handful, with hot-plugged memory up to its own limit of 32. */
export const MAX_REGIONS = 32
/** LIMIT: one typed array covers no more than this of a region, well below what every supported Node.js can index. */
const WINDOW = 2 ** 30
const PAGE = 4096

/** Consecutive bytes in one mapping. */
export interface Place { readonly bytes: Buffer; readonly view: DataView; readonly at: number }

interface Window { readonly mapping: ArrayBuffer; readonly bytes: Buffer; readonly view: DataView }
/** `shift`: bytes before the region in its first window (a region may begin inside a page of its file). `fd`: its file, for a successor of this process. */
interface Region extends MemoryRegion { readonly windows: readonly Window[]; readonly shift: number; readonly fd: number }

/** The regions of one front end. Everything that was obtained from it is dead after `clear` or `remove`. */
export class GuestMemory {
  #regions: Region[] = []

  /** Maps `region` of the file `fd`, which is the memory's own. @throws SERVE_BAD_GUEST when it overlaps another, is too large for its file or cannot be mapped */
  add(region: MemoryRegion, fd: number): void {
    try {
      this.#check(region)
      this.#regions.push(mapRegion(region, fd))
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /** What a successor would add. The descriptors stay the memory's. */
  get regions(): readonly (MemoryRegion & { readonly fd: number })[] {
    return this.#regions
  }

  /** @throws SERVE_BAD_GUEST when there is no such region */
  remove({ guest, size, user }: MemoryRegion): void {
    const at = this.#regions.findIndex((region) => region.guest === guest && region.size === size && region.user === user)
    if (at < 0) throw new CodedError('SERVE_BAD_GUEST', 'a memory region is to be removed that does not exist', { guest, size })
    unmapRegion(this.#regions[at]!)
    this.#regions.splice(at, 1)
  }

  clear(): void {
    for (const region of this.#regions) unmapRegion(region)
    this.#regions = []
  }

  /** Whether the front end has cut the file behind a region short: what was read since then may be zeros. */
  get broken(): boolean {
    return this.#regions.some(({ windows }) => windows.some(({ mapping }) => native().guardBroken(mapping) === 1))
  }

  /** Appends the `length` bytes at guest-physical `address` to `into`, a part for each mapping they lie in. @throws SERVE_BAD_GUEST outside of the memory */
  slices(address: number, length: number, into: Buffer[]): void {
    for (let done = 0; done < length;) {
      const at = address + done
      const region = this.#regions.find(({ guest, size }) => at >= guest && at < guest + size)
      if (!region) throw new CodedError('SERVE_BAD_GUEST', 'a guest names memory that it does not have', { address, length })
      const inRegion = at - region.guest
      const { window, offset, room } = windowAt(region, inRegion)
      const part = Math.min(length - done, region.size - inRegion, room)
      into.push(window.bytes.subarray(offset, offset + part))
      done += part
    }
  }

  /** The `length` bytes at `address` of the front end's own address space, in one piece. @throws SERVE_BAD_GUEST when there is no such piece */
  atUser(address: number, length: number): Place {
    const region = this.#regions.find(({ user, size }) => address >= user && address + length <= user + size)
    const found = region && windowAt(region, address - region.user)
    if (!found || found.room < length) throw new CodedError('SERVE_BAD_GUEST', 'a ring lies outside of the shared memory', { address, length })
    return { bytes: found.window.bytes, view: found.window.view, at: found.offset }
  }

  #check({ guest, size, user, offset }: MemoryRegion): void {
    if (this.#regions.length >= MAX_REGIONS) throw new CodedError('SERVE_BAD_GUEST', `more than ${MAX_REGIONS} memory regions`, {})
    if (size === 0 || ![guest + size, user + size, offset + size].every(Number.isSafeInteger)) throw new CodedError('SERVE_BAD_GUEST', 'a memory region has an impossible size', { guest, size })
    const overlaps = (from: number, other: number, length: number): boolean => from < other + length && other < from + size
    if (this.#regions.some((region) => overlaps(guest, region.guest, region.size) || overlaps(user, region.user, region.size))) {
      throw new CodedError('SERVE_BAD_GUEST', 'memory regions overlap', { guest, size })
    }
  }
}

function windowAt(region: Region, inRegion: number): { window: Window; offset: number; room: number } {
  const at = region.shift + inRegion
  const offset = at % WINDOW
  return { window: region.windows[Math.floor(at / WINDOW)]!, offset, room: WINDOW - offset }
}

function mapRegion(region: MemoryRegion, fd: number): Region {
  const shift = region.offset % PAGE
  const start = region.offset - shift
  const windows: Window[] = []
  try {
    for (let at = 0; at < shift + region.size; at += WINDOW) windows.push(mapWindow(fd, start + at, Math.min(WINDOW, shift + region.size - at)))
  } catch (cause) {
    windows.forEach(unmapWindow)
    throw cause instanceof CodedError ? cause : new CodedError('SERVE_BAD_GUEST', 'guest memory cannot be mapped: is the file as large as its region?', { size: region.size }, { cause })
  }
  return { ...region, windows, shift, fd }
}

function mapWindow(fd: number, offset: number, length: number): Window {
  const mapping = native().mmap(fd, offset, length, true)
  const guarded = native().guardMapping(mapping)
  if (guarded < 0) {
    native().munmap(mapping)
    throw new CodedError('SERVE_BAD_GUEST', 'too many memory regions', { errno: -guarded })
  }
  const bytes = Buffer.from(mapping)
  return { mapping, bytes, view: dataViewOf(bytes) }
}

function unmapRegion({ windows, fd }: Region): void {
  windows.forEach(unmapWindow)
  closeSync(fd)
}

function unmapWindow({ mapping }: Window): void {
  native().unguardMapping(mapping)
  native().munmap(mapping)
}

/** Reads `extents` of files straight into `parts` of guest memory, behind a reply's header. False when a file ends before. */
export function readInto(addon: NativeAddon, { fds, offsets, lengths, count }: Extents, parts: readonly Buffer[]): boolean {
  let part = 0
  let at = outHeader.size
  for (let i = 0; i < count; i++) {
    for (let done = 0; done < lengths[i]!;) {
      while (at >= parts[part]!.length) at -= parts[part++]!.length
      const target = parts[part]!
      const size = addon.pread(fds[i]!, target, at, Math.min(lengths[i]! - done, target.length - at), offsets[i]! + done)
      if (size <= 0) return false
      done += size
      at += size
    }
  }
  return true
}

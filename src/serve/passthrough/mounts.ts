// The host's mounts that a shared directory leads through: a file handle is opened by a descriptor of its mount, and inode numbers of another
// file system must not look like those of the first one.

import { closeSync, constants, readFileSync } from 'node:fs'
import { bytesOf } from '../../core/byte-string.ts'
import { FileStatus } from '../../native/beneath.ts'
import { native } from '../../native/load.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'

/** A mount, for as long as nodes of it are known. */
export interface HostMount {
  readonly id: number
  /** For open_by_handle_at; -1 where files have no handles, or this process may not use them. */
  readonly fd: number
  /** Upper bits of the inode numbers that its files show. */
  readonly inoHigh: number
  nodes: number
}

/** LIMIT: a host's device number is told by so many of the upper bits of an inode number; real inode numbers stay below. */
const DEVICE_SHIFT = 20
const MAX_DEVICES = 2 ** 11

/** Mounts by their id. */
export class HostMounts {
  readonly #mounts = new Map<number, HostMount>()
  readonly #devices = new Map<number, number>()

  /** The mount that `fd`, of which `status` tells, was found through. */
  of(fd: number, status: FileStatus): HostMount {
    const id = status.mount
    const known = this.#mounts.get(id)
    if (known) return known
    const mount: HostMount = { id, fd: mountDescriptor(fd, status), inoHigh: this.#inoHigh(status.device), nodes: 0 }
    // only one that can open files by their handles is worth a descriptor: others are asked about again and again, which costs little
    if (mount.fd >= 0) this.#mounts.set(id, mount)
    return mount
  }

  /** The mount of this id, for a node that a server before this one knew; undefined when it is gone. */
  find(id: number, device: number): HostMount | undefined {
    const known = this.#mounts.get(id)
    if (known) return known
    const fd = openMountpoint(id)
    if (fd === undefined) return undefined
    const mount: HostMount = { id, fd, inoHigh: this.#inoHigh(device), nodes: 0 }
    this.#mounts.set(id, mount)
    return mount
  }

  /** One node less: a mount that nobody knows files of must not be kept busy. */
  leave(mount: HostMount): void {
    if (--mount.nodes > 0 || mount.fd < 0) return
    this.#mounts.delete(mount.id)
    closeSync(mount.fd)
  }

  close(): void {
    for (const { fd } of this.#mounts.values()) closeSync(fd)
    this.#mounts.clear()
  }

  #inoHigh(device: number): number {
    let index = this.#devices.get(device)
    if (index === undefined) this.#devices.set(device, index = this.#devices.size % MAX_DEVICES)
    return (index << DEVICE_SHIFT) >>> 0
  }
}

/** A descriptor of the mount with this id, by its place in the host's tree. SPEC: proc_pid_mountinfo(5): id, parent, device, root, mountpoint. */
function openMountpoint(id: number): number | undefined {
  const line = readFileSync('/proc/self/mountinfo', 'latin1').split('\n').find((one) => one.startsWith(`${id} `))
  const place = line?.split(' ')[4]?.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
  if (place === undefined) return undefined
  const status = new FileStatus()
  const named = native().beneathRoot(bytesOf(place)) // a directory; a file that is a mountpoint is not found again
  const fd = named < 0 ? named : native().reopen(named, constants.O_RDONLY, 0)
  if (named >= 0) closeSync(named)
  if (fd < 0) return undefined
  if (native().statusOf(fd, status.bytes, false) === 0 && status.mount === id) return fd
  closeSync(fd) // something else is mounted over it
  return undefined
}

function mountDescriptor(fd: number, status: FileStatus): number {
  const type = status.mode & S_IFMT
  if (status.handle.length === 0 || (type !== S_IFDIR && type !== S_IFREG)) return -1
  const addon = native()
  const mount = addon.reopen(fd, constants.O_RDONLY, 0)
  if (mount < 0) return -1
  const again = addon.openHandle(mount, status.handleType, status.handle, 0o10000000 /* O_PATH */)
  if (again >= 0) {
    closeSync(again)
    return mount
  }
  closeSync(mount)
  return -1
}

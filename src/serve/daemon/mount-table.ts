// The mounts of a daemon: which file system is mounted where, under which serial, and what the kernel must forget when that changes.

import { fromText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { EROFS_NAME_LEN } from '../../format/erofs/super-block.ts'
import { findDirectory } from '../fuse/file-system-table.ts'
import { type Directory, MountTree, type Step } from '../fuse/mount-tree.ts'
import { nextSerial } from '../fuse/node-id.ts'
import type { MetadataView } from '../fuse/served-file-system.ts'
import type { StaleNames } from '../kernel-names.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'

/** LIMIT: as the kernel's PATH_MAX. */
const MAX_PATH = 4096

/** What a table row needs to know of what is mounted. */
export interface Mountable { readonly mountpoint: string; readonly view: MetadataView }

/** One row. */
export interface Row<T> { readonly serial: number; readonly steps: readonly Step[]; readonly mountedAt: Date; readonly mounted: T }

/** What a saved state says of a row: everything that the kernel may still refer to. */
export interface SavedRow { readonly serial: number; readonly directories: readonly number[]; readonly mountedAt: string }

/** What an attached or detached mount changes: the row, the one that it replaces, and what the kernel may have remembered. */
export interface Change<T> { readonly row: Row<T>; readonly replaced: Row<T> | undefined; readonly stale: StaleNames }

/** The canonical form of a mountpoint: absolute, no `.`, no `//`, no `/` at its end. @throws CONFIG_INVALID */
export function canonicalMountpoint(mountpoint: string): string {
  return `/${namesOf(mountpoint).join('/')}`
}

/** Mounts by canonical mountpoint and by serial. */
export class MountTable<T extends Mountable> {
  readonly #rows = new Map<string, Row<T>>()
  readonly #bySerial = new Map<number, Row<T>>()
  readonly #tree = new MountTree({
    rootOf: (serial) => {
      const view = this.#bySerial.get(serial)?.mounted.view
      return view && { serial, nid: view.rootNid }
    },
    find: ({ serial, nid }, name) => findDirectory(this.#bySerial.get(serial)?.mounted.view, serial, nid, name),
  })
  #lastSerial = 0

  /** Serials and directory numbers given out so far; later ones are larger. */
  get last(): { readonly serial: number; readonly directory: number } {
    return { serial: this.#lastSerial, directory: this.#tree.lastId }
  }

  set last({ serial, directory }: { readonly serial: number; readonly directory: number }) {
    this.#lastSerial = Math.max(this.#lastSerial, serial)
    this.#tree.lastId = Math.max(this.#tree.lastId, directory)
  }

  /** By mountpoint, in any spelling. */
  at(mountpoint: string): Row<T> | undefined {
    return this.#rows.get(canonicalMountpoint(mountpoint))
  }

  bySerial(serial: number): Row<T> | undefined {
    return this.#bySerial.get(serial)
  }

  [Symbol.iterator](): IterableIterator<Row<T>> {
    return this.#rows.values()
  }

  /** Mounts, in place of what is mounted there; a row of a saved state keeps its numbers. @throws SERVE_STATE when numbers are used up, SERVE_BAD_STATE_FILE */
  attach(mounted: T, saved?: SavedRow): Change<T> {
    const names = namesOf(mounted.mountpoint).map(fromText)
    const steps = saved ? stepsOf(names, saved) : this.#tree.plan(names)
    const replaced = this.#rows.get(canonicalMountpoint(mounted.mountpoint))
    const serial = saved?.serial ?? nextSerial(this.#lastSerial)
    const row: Row<T> = { serial, steps, mountedAt: saved ? new Date(saved.mountedAt) : new Date(), mounted }
    this.last = { serial, directory: 0 }
    const stale = this.#staleAt(names, [replaced?.mounted.view, mounted.view])
    this.#rows.set(canonicalMountpoint(mounted.mountpoint), row)
    this.#bySerial.set(serial, row)
    this.#tree.attach(steps, serial)
    if (replaced) this.#bySerial.delete(replaced.serial)
    return { row, replaced, stale }
  }

  /** Unmounts. @throws SERVE_NOT_MOUNTED */
  detach(mountpoint: string): Change<T> {
    const row = this.at(mountpoint)
    const directory = row && this.#tree.directories.get(row.steps.at(-1)?.id ?? FUSE_ROOT_ID)
    if (!row || !directory) throw new CodedError('SERVE_NOT_MOUNTED', `nothing is mounted on ${mountpoint}`, { mountpoint })
    const top = this.#tree.detach(directory)
    this.#rows.delete(canonicalMountpoint(mountpoint))
    this.#bySerial.delete(row.serial)
    const stale = top.parent ? { ...this.#nodeOf(top.parent), names: [top.name] } : this.#staleAt([], [row.mounted.view])
    return { row, replaced: undefined, stale }
  }

  /** For a saved state. */
  save({ serial, steps, mountedAt }: Row<T>): SavedRow {
    return { serial, directories: steps.map(({ id }) => id), mountedAt: mountedAt.toISOString() }
  }

  /** What changes for who knows the file system when something is mounted at `names`: one name, or all names of the root. */
  #staleAt(names: readonly string[], roots: readonly (MetadataView | undefined)[]): StaleNames {
    let at = this.#tree.root
    for (const [i, name] of names.entries()) {
      const next = at.children.get(name)
      if (!next || i === names.length - 1) return { ...this.#nodeOf(at), names: [name] }
      at = next
    }
    const all = new Set(this.#tree.root.children.keys())
    for (const view of roots) for (const { name } of view?.entries(view.inode(view.rootNid)) ?? []) all.add(name)
    return { nodeHigh: 0, nodeLow: FUSE_ROOT_ID, names: [...all].filter((name) => name !== '.' && name !== '..') }
  }

  /** The node that the kernel knows `directory` by. */
  #nodeOf(directory: Directory): { nodeHigh: number; nodeLow: number } {
    const shown = directory.parent && this.#tree.shown(directory)
    return shown ? { nodeHigh: shown.serial, nodeLow: shown.nid } : { nodeHigh: 0, nodeLow: directory.id }
  }
}

function namesOf(mountpoint: string): string[] {
  const names = mountpoint.split('/').filter((name) => name !== '')
  const bad = names.some((name) => name === '.' || name === '..' || name.includes('\0') || Buffer.byteLength(name) > EROFS_NAME_LEN)
  if (!mountpoint.startsWith('/') || bad || mountpoint.length > MAX_PATH) {
    throw new CodedError('CONFIG_INVALID', 'a mountpoint is an absolute path without . and ..', { mountpoint: mountpoint.slice(0, 200) })
  }
  return names
}

function stepsOf(names: readonly string[], { directories }: SavedRow): Step[] {
  return names.map((name, i) => {
    const id = directories[i]
    if (id === undefined) throw new CodedError('SERVE_BAD_STATE_FILE', 'the saved daemon state has too few directories for a mountpoint')
    return { id, name }
  })
}

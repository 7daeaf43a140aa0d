// Where file systems are mounted inside one export: a tree of directories, each with a number that is its node id for as long as nothing
// is mounted there. A mountpoint may lie inside a mounted image: then the image's directories on the way are shown, with the mountpoint
// among their entries, as with mount(2). Main thread and workers keep a tree each; the main thread gives the numbers out.
//
//        /            1   an image may be mounted on it
//        ├─ a         2   "pseudo" directory: shows its children
//        │  └─ b      3   a mount: shows the root of its file system
//        └─ usr       4   "shadow": the directory /usr of the image on /, which has one entry more
//           └─ x      5   a mount

import { CodedError } from '../../core/errors.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import { MAX_NID } from './node-id.ts'

/** One component of a mountpoint's path: its name (a byte string) and the number of its directory. Plain data. */
export interface Step { readonly id: number; readonly name: string }

/** A directory inside a mounted file system. */
export interface Shadow { readonly serial: number; readonly nid: number }

export interface Directory {
  readonly id: number
  readonly name: string
  readonly parent: Directory | undefined
  readonly children: Map<string, Directory>
  /** Of what is mounted here; 0 for nothing. */
  serial: number
  /** The directory that a mounted file system above has at this place; undefined when there is none, or something is mounted here. */
  shadow: Shadow | undefined
}

/** Asks mounted file systems for their directories. */
export interface DirectoryFinder {
  /** The root of a mounted file system. */
  rootOf(serial: number): Shadow | undefined
  /** The directory `name` in `directory`, undefined when there is none of that name. */
  find(directory: Shadow, name: string): Shadow | undefined
}

/** The tree of mountpoints. */
export class MountTree {
  readonly root: Directory = { id: FUSE_ROOT_ID, name: '', parent: undefined, children: new Map(), serial: 0, shadow: undefined }
  /** By number. */
  readonly directories = new Map<number, Directory>([[FUSE_ROOT_ID, this.root]])
  /** Numbers are never used twice: the kernel may still hold a node of a directory that is gone. */
  lastId = FUSE_ROOT_ID
  readonly #finder: DirectoryFinder
  readonly #changed: (directory: Directory, before: Shadow | undefined) => void

  /** `changed` hears of directories that now show another directory of a file system than `before`. */
  constructor(finder: DirectoryFinder, changed: (directory: Directory, before: Shadow | undefined) => void = () => {}) {
    this.#finder = finder
    this.#changed = changed
  }

  /** The steps to the mountpoint of these names; directories that do not exist yet are numbered. @throws SERVE_STATE when numbers are used up */
  plan(names: readonly string[]): Step[] {
    let at: Directory | undefined = this.root
    return names.map((name) => {
      at = at?.children.get(name)
      if (at) return { id: at.id, name }
      if (this.lastId >= MAX_NID) throw new CodedError('SERVE_STATE', 'numbers of directories are used up: restart the daemon')
      return { id: ++this.lastId, name }
    })
  }

  /** Mounts `serial` at the end of `steps`, in place of what is mounted there. Returns the mountpoint. */
  attach(steps: readonly Step[], serial: number): Directory {
    let at = this.root
    let first: Directory | undefined
    for (const { id, name } of steps) {
      let next = at.children.get(name)
      if (!next) {
        next = { id, name, parent: at, children: new Map(), serial: 0, shadow: undefined }
        at.children.set(name, next)
        this.directories.set(id, next)
        this.lastId = Math.max(this.lastId, id)
        first ??= next
      }
      at = next
    }
    at.serial = serial
    this.#settle(first ?? at)
    return at
  }

  /** Unmounts whatever is mounted on `directory`; it and its parents vanish where nothing else needs them. Returns the topmost one that vanished, or `directory`. */
  detach(directory: Directory): Directory {
    directory.serial = 0
    let top = directory
    for (let at = directory; at.parent && at.serial === 0 && at.children.size === 0; at = at.parent) {
      this.#forget(at)
      top = at
    }
    if (this.directories.has(directory.id)) this.#settle(directory)
    return top
  }

  /** The directory of a file system that `directory` shows; undefined when it shows its children only. */
  shown(directory: Directory): Shadow | undefined {
    return directory.serial === 0 ? directory.shadow : this.#finder.rootOf(directory.serial)
  }

  /** Says again what `directory` and everything below it shows. */
  #settle(directory: Directory): void {
    const above = directory.parent && this.shown(directory.parent)
    const before = directory.shadow
    directory.shadow = directory.serial === 0 && above ? this.#finder.find(above, directory.name) : undefined
    this.#changed(directory, before)
    for (const child of directory.children.values()) this.#settle(child)
  }

  #forget(directory: Directory): void {
    const before = directory.shadow
    directory.parent?.children.delete(directory.name)
    this.directories.delete(directory.id)
    directory.shadow = undefined
    this.#changed(directory, before)
  }
}

// All file systems that one connection serves, by mount serial, and the tree of directories that they are mounted in.

import { CodedError, isCoded } from '../../core/errors.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { EROFS_FT, EROFS_LAYOUT, S_IFDIR, S_IFMT } from '../../format/erofs/inode.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import type { OperationCounters } from '../counters.ts'
import { type Directory, type DirectoryFinder, MountTree, type Shadow, type Step } from './mount-tree.ts'
import type { LiveServer } from './live-requests.ts'
import { MAX_NID } from './node-id.ts'
import type { MetadataView, ServedFileSystem } from './served-file-system.ts'

/** Serial of the pseudo file system: directories that exist only because something is mounted below them. */
export const PSEUDO_SERIAL = 0

/** A file system in the table. */
export interface Mounted {
  readonly serial: number
  readonly fs: ServedFileSystem
  /** By nid: its directories that other file systems are mounted in or below. */
  readonly covers: ReadonlyMap<number, Directory>
  /** Upper word of the inode numbers that its files show: (device, inode) names one file, whatever image it is from. */
  readonly inoHigh: number
  readonly counters: OperationCounters | undefined
  /** Of a live file system that this thread serves. */
  readonly server: LiveServer | undefined
}

interface Entry extends Mounted { readonly covers: Map<number, Directory>; inoHigh: number; directory: Directory | undefined }

/** A place in a file system. */
export interface Entrance { readonly mounted: Mounted; readonly nid: number }

/** Upper word of a pseudo directory's inode number while an image is the root. */
const PSEUDO_INO_HIGH = 0xffff_ffff

/** File systems by mount serial, and what they cover. */
export class FileSystemTable {
  readonly #mounts = new Map<number, Entry>()
  readonly #tree: MountTree
  readonly #pseudo: Entry
  #root: Entry
  #delegated = 0
  readonly #servers = new Map<number, LiveServer>()

  /**
   * `notified`: whether the kernel is told when something is mounted or unmounted, so that it may keep what it has seen.
   * `counters` are those of the pseudo directories.
   */
  constructor({ notified = false, counters }: { readonly notified?: boolean; readonly counters?: OperationCounters } = {}) {
    this.#tree = new MountTree(this.#finder(), (directory, before) => this.#changed(directory, before))
    this.#pseudo = { serial: PSEUDO_SERIAL, fs: pseudoFileSystem(this.#tree.directories, !notified), covers: this.#tree.directories, inoHigh: 0, counters, server: undefined, directory: undefined }
    this.#root = this.#pseudo
  }

  /**
   * Mounts `fs` at the end of `steps`. What was mounted there is hidden from now on, and served for those who have it until it is unmounted.
   * @throws FORMAT_OUT_OF_RANGE when its root cannot be a node id
   */
  mount(serial: number, fs: ServedFileSystem, steps: readonly Step[] = [], counters?: OperationCounters): void {
    if (fs.view.rootNid > MAX_NID) throw new CodedError('FORMAT_OUT_OF_RANGE', 'root inode lies beyond 128 GiB', { nid: fs.view.rootNid })
    const inoHigh = steps.length === 0 ? 0 : serial
    const server = fs.live && { live: fs.live, journal: fs.journal, nodeHigh: serial, inoHigh }
    const entry: Entry = { serial, fs, covers: new Map(), inoHigh, counters, server, directory: undefined }
    this.#mounts.set(serial, entry)
    if (fs.delegated) this.#delegated++
    if (server) this.#servers.set(serial, server)
    entry.directory = this.#tree.attach(steps, serial)
    if (steps.length === 0) this.#setRoot(entry)
  }

  /** Unmounts; nothing happens when `serial` is not mounted. Nodes of it are stale from now on. */
  unmount(serial: number): void {
    const directory = this.#mounts.get(serial)?.directory
    if (directory?.serial === serial) {
      this.#tree.detach(directory)
      if (directory === this.#tree.root) this.#setRoot(this.#pseudo)
    }
    if (this.#mounts.get(serial)?.fs.delegated) this.#delegated--
    this.#servers.delete(serial)
    this.#mounts.delete(serial)
  }

  /** The file system that node (high, low) belongs to; undefined when it has been unmounted. */
  get(high: number, low: number): Mounted | undefined {
    if (high !== PSEUDO_SERIAL) return this.#mounts.get(high)
    return low === FUSE_ROOT_ID ? this.#root : this.#pseudo
  }

  /** Whether another thread serves one of them. */
  get hasDelegated(): boolean {
    return this.#delegated > 0
  }

  /** Whether one of them is live, wherever it is served. */
  get hasLive(): boolean {
    return this.#delegated > 0 || this.#servers.size > 0
  }

  /** Those that this thread serves. */
  servers(): Iterable<LiveServer> {
    return this.#servers.values()
  }

  /** What node id 1 shows. */
  get root(): Mounted {
    return this.#root
  }

  /** Where `name` in directory `nid` of `mounted` leads when that is another file system, or a directory with no file system of its own. */
  cross(mounted: Mounted, nid: number, name: string): Entrance | undefined {
    const directory = mounted.covers.get(nid)
    if (!directory) return undefined
    if (name === '..') return directory.shadow || !directory.parent ? undefined : this.entrance(directory.parent)
    const child = directory.children.get(name)
    return child && !child.shadow ? this.entrance(child) : undefined
  }

  /** What `directory` shows. */
  entrance(directory: Directory): Entrance {
    const shown = this.#tree.shown(directory)
    const mounted = shown && this.#mounts.get(shown.serial)
    return mounted ? { mounted, nid: shown.nid } : { mounted: this.#pseudo, nid: directory.id }
  }

  #finder(): DirectoryFinder {
    return {
      rootOf: (serial) => {
        const mounted = this.#mounts.get(serial)
        return mounted && { serial, nid: mounted.fs.view.rootNid }
      },
      find: ({ serial, nid }, name) => findDirectory(this.#mounts.get(serial)?.fs.view, serial, nid, name),
    }
  }

  #changed(directory: Directory, before: Shadow | undefined): void {
    if (before) this.#mounts.get(before.serial)?.covers.delete(before.nid)
    const now = this.#tree.directories.get(directory.id) === directory ? this.#tree.shown(directory) : undefined
    if (now) this.#mounts.get(now.serial)?.covers.set(now.nid, directory)
  }

  #setRoot(entry: Entry): void {
    this.#root = entry
    this.#pseudo.inoHigh = entry === this.#pseudo ? 0 : PSEUDO_INO_HIGH
  }
}

/** The directory `name` in directory `nid`. What cannot be read is not there: the pseudo directory that takes its place is better than no mount. */
export function findDirectory(view: MetadataView | undefined, serial: number, nid: number, name: string): Shadow | undefined {
  try {
    const found = view?.lookup(view.inode(nid), name)
    return view && found && found.nid <= MAX_NID && (view.inode(found.nid).mode & S_IFMT) === S_IFDIR ? { serial, nid: found.nid } : undefined
  } catch (error) {
    if (isCoded(error)) return undefined
    throw error
  }
}

/** Its directories are empty by themselves: their children are what the table's tree has there. */
function pseudoFileSystem(directories: ReadonlyMap<number, Directory>, mutable: boolean): ServedFileSystem {
  return {
    view: {
      rootNid: FUSE_ROOT_ID,
      inode(nid) {
        if (!directories.has(nid)) throw new CodedError('SERVE_STALE_NODE', 'nothing is mounted below this directory any more', { nid })
        return pseudoInode(nid)
      },
      lookup: (directory, name) => (name === '.' || name === '..' ? { nid: directory.nid, fileType: EROFS_FT.directory } : undefined),
      *entries({ nid }, from = 0) {
        for (let i = from; i < DOTS.length; i++) yield { name: DOTS[i]!, nid, fileType: EROFS_FT.directory, next: i + 1 }
      },
      readlink() {
        throw new CodedError('RAFS_NOT_SYMLINK', 'a directory is no symbolic link')
      },
      xattr: () => undefined,
      xattrs: () => [],
    },
    hasXattr: false,
    explicitIds: true,
    mutable,
    locate: () => false,
  }
}

const DOTS = ['.', '..']

function pseudoInode(nid: number): Inode {
  return {
    nid, ino: nid, mode: S_IFDIR | 0o755, nlink: 2, size: 0, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0,
    layout: EROFS_LAYOUT.flatPlain, union: 0, rdev: 0, xattrCount: 0, offset: 0, headerSize: 64,
  }
}

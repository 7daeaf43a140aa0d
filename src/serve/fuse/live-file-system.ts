// A file system that changes, as the server of its requests sees it (live-requests.ts): one method for each operation. Every method answers
// with 0, a length or a handle, or with a negative errno, at once or later; one that throws is answered by errno.ts. Names are byte strings of one
// component. Nodes are 32-bit numbers that the file system gives out; ROOT_NODE is its root.

/** The root of every live file system. */
export const ROOT_NODE = 1

/** An answer: not negative, or a negative errno. */
export type Answer = number | Promise<number>

/** What is told of a node, straight into the reply; filled by the file system. */
export interface NodeAnswer {
  /** A struct fuse_attr, 88 bytes at `attributesAt`; its inode number is the file system's own. */
  readonly bytes: Uint8Array
  readonly attributesAt: number
  /** How long the kernel may keep name and attributes, seconds. */
  nameSeconds: number
  attributeSeconds: number
  /** Of an opened file: flags (FOPEN), and of one that was created the handle. */
  openFlags: number
  handle: number
}

/** Who asks, and the journal of what is done for him (journal.ts). */
export interface Operation {
  readonly uid: number
  readonly gid: number
  readonly pid: number
  /** Of an operation that makes something: what is to be taken from its mode unless the directory says more. */
  readonly umask: number
  /**
   * A server that died had begun this operation, and perhaps done it: the note of its `begin`. Undefined for an operation that is asked for the
   * first time, and for one that was never begun.
   */
  readonly begun: number | undefined
  /**
   * Must be called before the first change of an operation that cannot simply be done again, and not before the last await: what
   * follows is done in one turn. `note`: what its repetition needs to find out whether it was done.
   */
  begin(note?: number): void
}

/** A new value for some attributes; undefined keeps. `now`: the file system's clock. */
export interface AttributeChange {
  /** Of the open file that it is asked through. */
  readonly handle: number | undefined
  readonly mode: number | undefined
  readonly uid: number | undefined
  readonly gid: number | undefined
  readonly size: number | undefined
  readonly atime: Moment | 'now' | undefined
  readonly mtime: Moment | 'now' | undefined
}

export interface Moment { readonly seconds: number; readonly nanoseconds: number }

/** Takes the entries of a directory while there is room for them. */
export interface EntrySink {
  /** Whether READDIRPLUS asks: then entries may have a node and its attributes (a struct fuse_attr), which counts as a lookup. */
  readonly plus: boolean
  /** False when there is no room: the entry was not taken. `type`: as d_type. The cookie says where the next read goes on. `seconds`: how long name and attributes may be kept. */
  add(name: string, inoLow: number, inoHigh: number, type: number, cookieLow: number, cookieHigh: number, node?: number, attributes?: Uint8Array, seconds?: number): boolean
}

/** `lookup` and what makes a node answer with the node; 0 of a lookup says "no such name", which the kernel may remember. */
export interface LiveFileSystem {
  lookup(parent: number, name: string, out: NodeAnswer): Answer
  /** Another client: no node but the root and no open file is known to anybody any more. */
  reset?(): void
  /** The kernel has let go of `count` lookups. */
  forget(node: number, count: number): void
  getattr(node: number, handle: number, out: NodeAnswer): Answer
  setattr(node: number, change: AttributeChange, by: Operation, out: NodeAnswer): Answer
  readlink(node: number, into: Uint8Array): Answer
  symlink(parent: number, name: string, target: Uint8Array, by: Operation, out: NodeAnswer): Answer
  mknod(parent: number, name: string, mode: number, rdev: number, by: Operation, out: NodeAnswer): Answer
  mkdir(parent: number, name: string, mode: number, by: Operation, out: NodeAnswer): Answer
  unlink(parent: number, name: string, by: Operation): Answer
  rmdir(parent: number, name: string, by: Operation): Answer
  /** `flags`: of renameat2(2). */
  rename(parent: number, name: string, newParent: number, newName: string, flags: number, by: Operation): Answer
  link(node: number, newParent: number, newName: string, by: Operation, out: NodeAnswer): Answer
  /** Answers with a handle. */
  open(node: number, flags: number, out: NodeAnswer): Answer
  /** Makes a regular file and opens it; the handle goes to `out`. */
  create(parent: number, name: string, flags: number, mode: number, by: Operation, out: NodeAnswer): Answer
  release(node: number, handle: number): Answer
  read(node: number, handle: number, offset: number, into: Uint8Array): Answer
  write(node: number, handle: number, offset: number, bytes: Uint8Array, by: Operation): Answer
  flush(node: number, handle: number): Answer
  fsync(node: number, handle: number, dataOnly: boolean): Answer
  fallocate(node: number, handle: number, mode: number, offset: number, length: number): Answer
  /** Answers with an offset; `whence`: SEEK_DATA 3, SEEK_HOLE 4. */
  lseek(node: number, handle: number, offset: number, whence: number): Answer
  copyRange(from: number, fromHandle: number, fromOffset: number, to: number, toHandle: number, toOffset: number, length: number): Answer
  /** Answers with a handle. */
  opendir(node: number, out: NodeAnswer): Answer
  /** From the cookie on; 0 is the beginning. */
  readdir(node: number, handle: number, cookieLow: number, cookieHigh: number, sink: EntrySink): Answer
  releasedir(node: number, handle: number): Answer
  fsyncdir(node: number, handle: number, dataOnly: boolean): Answer
  /** Answers with the length, and fills `into` when that is not empty and large enough (ERANGE). */
  getxattr(node: number, name: string, into: Uint8Array): Answer
  /** Names, each with a NUL behind it; as getxattr. */
  listxattr(node: number, into: Uint8Array): Answer
  setxattr(node: number, name: string, value: Uint8Array, flags: number, by: Operation): Answer
  removexattr(node: number, name: string, by: Operation): Answer
  /** Fills a struct fuse_kstatfs, 80 bytes. */
  statfs(into: Uint8Array): Answer
  /** Another server goes on: nothing is changed here from now on, not even by what is under way. */
  abandon?(): void
}

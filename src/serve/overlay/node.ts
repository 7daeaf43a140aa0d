// What an overlay knows of one of its files: where it is, and the number that the kernel knows it by.

import { S_IFDIR } from '../../format/erofs/inode.ts'

/** How names in the work directory begin that stand for a file without a name. */
export const KEPT = 'kept-'

/** One name of a file. */
export interface Place { readonly parent: OverlayNode; readonly name: string }

/** A file or directory that the kernel knows, or that leads to one. */
export class OverlayNode {
  readonly id: number
  /** S_IFMT bits. */
  readonly type: number
  /** What the image has here: all there is (no upper part), or the directory that the upper one is merged with. */
  lower: number | undefined
  /** Whether there is an upper part. */
  hasUpper: boolean
  /** The upper part has no name any more and is kept in the work directory, as `keptName`. */
  isKept = false
  /** Where it is; undefined for the root, and for what has no name any more. */
  place: Place | undefined
  /** Other names of the same file. */
  others: Place[] = []
  /** What stat shows. */
  inoLow: number
  inoHigh: number
  /** Known ones, by name. */
  readonly children: Map<string, OverlayNode> | undefined
  lookups = 0
  /** Known to be open so often. One that a server before this one knew may be open for all this one knows. */
  opens = 0
  /** Last attributes of what is no more (a removed directory that somebody stands in). */
  gone: Uint8Array | undefined
  /** Its content is being copied up. */
  copying: Promise<number> | undefined

  constructor(id: number, { type, lower, hasUpper, inoLow, inoHigh }: { readonly type: number; readonly lower: number | undefined; readonly hasUpper: boolean; readonly inoLow: number; readonly inoHigh: number }) {
    this.id = id
    this.type = type
    this.lower = lower
    this.hasUpper = hasUpper
    this.inoLow = inoLow
    this.inoHigh = inoHigh
    this.children = type === S_IFDIR ? new Map() : undefined
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR
  }

  /** A directory with an upper and a lower part. */
  get isMerged(): boolean {
    return this.hasUpper && this.lower !== undefined && this.isDirectory
  }

  /** Its name in the work directory, when it has no other. */
  get keptName(): string {
    return `${KEPT}${this.id}`
  }
}

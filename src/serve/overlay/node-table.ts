// The nodes that the kernel knows, in memory and in a log beside the journal: a server that continues the connection must know what each number
// means. A line is the whole state of one node, the last one counts; a line that was not written to its end is none.

import { appendFileSync, closeSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs'
import { MiB } from '../../core/units.ts'
import { ROOT_NODE } from '../fuse/live-file-system.ts'
import { OverlayNode, type Place } from './node.ts'

/** LIMIT: the log is written anew when it is this long and four times what it has to say. */
const MIN_COMPACTION = MiB
const FORGOTTEN = -1

interface Saved { readonly id: number; readonly type: number; readonly lower: number; readonly bits: number; readonly inoLow: number; readonly inoHigh: number; readonly places: readonly (readonly [parent: number, name: string])[] }

const BIT = { upper: 1, kept: 2, gone: 4 } as const

/** Nodes by number. */
export class NodeTable {
  readonly root: OverlayNode
  readonly #nodes = new Map<number, OverlayNode>()
  readonly #path: string
  #fd: number
  #last = ROOT_NODE
  #size = 0
  /** Of lines about nodes that are still there, by number. */
  readonly #lengths = new Map<number, number>()
  #live = 0

  /** `root` is the root as it is now; with `resume` the other nodes are those of the server before this one. */
  constructor(path: string, root: OverlayNode, { resume }: { readonly resume: boolean }) {
    this.root = root
    this.#path = path
    this.#nodes.set(root.id, root)
    if (resume) this.#read()
    this.#fd = resume ? openSync(path, 'a', 0o600) : this.#begin([])
    this.#size = statSync(path).size
  }

  get(id: number): OverlayNode | undefined {
    return this.#nodes.get(id)
  }

  [Symbol.iterator](): IterableIterator<OverlayNode> {
    return this.#nodes.values()
  }

  /** A new node at `place`. */
  add(place: Place, properties: ConstructorParameters<typeof OverlayNode>[1]): OverlayNode {
    const node = new OverlayNode(++this.#last, properties)
    node.place = place
    place.parent.children?.set(place.name, node)
    this.#nodes.set(node.id, node)
    this.save(node)
    return node
  }

  /** To be called whenever something of the node has changed that a successor must know. */
  save(node: OverlayNode): void {
    if (node !== this.root) this.#append([node.id, JSON.stringify(savedOf(node))])
  }

  /** The same of two whose changes are one. */
  saveBoth(first: OverlayNode, second: OverlayNode): void {
    this.#append([first.id, JSON.stringify(savedOf(first))], [second.id, JSON.stringify(savedOf(second))])
  }

  /** The kernel knows it no more. */
  drop(node: OverlayNode): void {
    for (const { parent, name } of namesOf(node)) if (parent.children?.get(name) === node) parent.children.delete(name)
    this.#nodes.delete(node.id)
    this.#append([node.id, JSON.stringify({ id: node.id, type: FORGOTTEN })])
    this.#live -= this.#lengths.get(node.id) ?? 0
    this.#lengths.delete(node.id)
  }

  close(): void {
    closeSync(this.#fd)
  }

  #append(...lines: readonly (readonly [id: number, line: string])[]): void {
    writeSync(this.#fd, lines.map(([, line]) => `${line}\n`).join(''))
    for (const [id, line] of lines) {
      const length = Buffer.byteLength(line) + 1
      this.#size += length
      this.#live += length - (this.#lengths.get(id) ?? 0)
      this.#lengths.set(id, length)
    }
    if (this.#size > MIN_COMPACTION && this.#size > 4 * this.#live) this.#compact()
  }

  #compact(): void {
    closeSync(this.#fd)
    this.#fd = this.#begin([...this.#nodes.values()].filter((node) => node !== this.root))
    this.#size = statSync(this.#path).size
  }

  // Whole, then in place: a server that dies meanwhile leaves one or the other.
  #begin(nodes: readonly OverlayNode[]): number {
    const path = `${this.#path}.new`
    const fd = openSync(path, 'w', 0o600)
    closeSync(fd)
    const lines = [JSON.stringify({ id: this.#last, type: FORGOTTEN }), ...nodes.map((node) => JSON.stringify(savedOf(node)))]
    appendFileSync(path, `${lines.join('\n')}\n`)
    renameSync(path, this.#path)
    return openSync(this.#path, 'a', 0o600)
  }

  #read(): void {
    const rows = new Map<number, Saved>()
    for (const line of readFileSync(this.#path, 'utf8').split('\n').slice(0, -1)) {
      // SAFETY: lines are written by this class only, in a directory that is the overlay's own.
      const row = JSON.parse(line) as Saved
      this.#last = Math.max(this.#last, row.id)
      if (row.type === FORGOTTEN) rows.delete(row.id)
      else rows.set(row.id, row)
    }
    for (const { id, type, lower, bits, inoLow, inoHigh } of rows.values()) {
      const node = new OverlayNode(id, { type, lower: lower < 0 ? undefined : lower, hasUpper: (bits & BIT.upper) !== 0, inoLow, inoHigh })
      node.isKept = (bits & BIT.kept) !== 0
      if ((bits & BIT.gone) !== 0) node.gone = new Uint8Array(0)
      node.lookups = Number.POSITIVE_INFINITY // LIMIT: how often it was looked up is not written down: it stays known
      node.opens = 1
      this.#nodes.set(id, node)
    }
    for (const { id, places } of rows.values()) {
      const node = this.#nodes.get(id)!
      const found = places.flatMap(([parent, name]) => {
        const directory = this.#nodes.get(parent)
        directory?.children?.set(name, node)
        return directory ? [{ parent: directory, name }] : []
      })
      node.place = found[0]
      node.others = found.slice(1)
    }
  }
}

/** All names that are known. */
export function namesOf({ place, others }: OverlayNode): Place[] {
  return place ? [place, ...others] : []
}

function savedOf(node: OverlayNode): Saved {
  return {
    id: node.id, type: node.type, lower: node.lower ?? -1, inoLow: node.inoLow, inoHigh: node.inoHigh,
    bits: (node.hasUpper ? BIT.upper : 0) | (node.isKept ? BIT.kept : 0) | (node.gone ? BIT.gone : 0),
    places: namesOf(node).map(({ parent, name }) => [parent.id, name] as const),
  }
}

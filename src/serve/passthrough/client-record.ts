// What a client knows of a shared directory, in a file that outlives the process: nodes and open files by their handles. The next server of the
// connection goes on with it. Rows are written in place, before the client can know of them, and never synced: the page cache survives a
// process, and what does not survive the machine has no client.
// A row is written whole before its kind says that it is there; a count that was raised for an answer that never left is raised again.

import { closeSync, ftruncateSync, fstatSync, openSync, renameSync } from 'node:fs'
import { bytes, dataViewOf, i32, magic, reserved, size64, struct, u32 } from '../../core/struct.ts'
import { mapFile } from '../../native/file.ts'
import { native } from '../../native/load.ts'

/** native/beneath.c HANDLE_SIZE. */
const HANDLE_ROOM = 128

const MAGIC = 0x4353_584e

export const recordRow = struct('ClientRecordRow', 192, [
  [  0, 'kind',         u32, 'kind: 0 free, 1 a node, 2 an open file'],
  [  4, 'nid',          u32, 'nid: node'],
  [  8, 'number',       size64, 'number: of lookups; of an open file its handle'],
  [ 16, 'mount',        size64, 'mount: id of the mount (STATX_MNT_ID)'],
  [ 24, 'device',       size64, 'device: major * 2^20 + minor'],
  [ 32, 'handleType',   i32, 'handle_type'],
  [ 36, 'handleLength', u32, 'handle_length'],
  [ 40, 'flags',        u32, 'flags: of an open file'],
  [ 44, 'magic',        magic(MAGIC), 'magic: NXSC'],
  [ 48, 'handle',       bytes(HANDLE_ROOM), 'f_handle'],
  [176, '_unused',      reserved(16), 'unused'],
])

const KIND = { free: 0, node: 1, file: 2 } as const
const R = recordRow.offsetOf
/** LIMIT: rows that the file grows by; whole pages. */
const WINDOW_ROWS = 4096
const WINDOW = WINDOW_ROWS * recordRow.size

export interface RecordedNode { readonly row: number; readonly nid: number; readonly lookups: number; readonly mount: number; readonly device: number; readonly handleType: number; readonly handle: Uint8Array }
export interface RecordedFile { readonly row: number; readonly nid: number; readonly handle: number; readonly flags: number }

/** The record of one client. */
export class ClientRecord {
  readonly nodes: RecordedNode[] = []
  readonly files: RecordedFile[] = []
  readonly #fd: number
  readonly #windows: { readonly mapping: ArrayBuffer; readonly bytes: Uint8Array; readonly view: DataView }[] = []
  readonly #free: number[] = []
  #rows = 0

  /** Goes on with the record at `path` (`resume`): `nodes` and `files` are what is in it. Otherwise begins a new one. Throws what open(2) says. */
  constructor(path: string, { resume }: { readonly resume: boolean }) {
    if (resume) {
      this.#fd = openSync(path, 'r+')
      this.#read()
    } else {
      // a new file: whoever still has the old one must not write into this
      this.#fd = openSync(`${path}.new`, 'w+', 0o600)
      renameSync(`${path}.new`, path)
    }
  }

  /** Returns the row of a node that the client is to be told of. */
  addNode({ nid, mount, device, handleType, handle }: Omit<RecordedNode, 'row' | 'lookups'>): number {
    const row = this.#take()
    const { bytes: into, view, at } = this.#at(row)
    view.setUint32(at + R.nid, nid, true)
    put(view, at + R.number, 1)
    put(view, at + R.mount, mount)
    put(view, at + R.device, device)
    view.setInt32(at + R.handleType, handleType, true)
    view.setUint32(at + R.handleLength, handle.length, true)
    view.setUint32(at + R.magic, MAGIC, true)
    into.set(handle, at + R.handle)
    view.setUint32(at + R.kind, KIND.node, true)
    return row
  }

  /** How often the client was told of the node. */
  count(row: number, lookups: number): void {
    const { view, at } = this.#at(row)
    put(view, at + R.number, lookups)
  }

  /** Returns the row of a file that the client is to be told that it has open. */
  addFile({ nid, handle, flags }: Omit<RecordedFile, 'row'>): number {
    const row = this.#take()
    const { view, at } = this.#at(row)
    view.setUint32(at + R.nid, nid, true)
    put(view, at + R.number, handle)
    view.setUint32(at + R.flags, flags, true)
    view.setUint32(at + R.magic, MAGIC, true)
    view.setUint32(at + R.kind, KIND.file, true)
    return row
  }

  remove(row: number): void {
    const { view, at } = this.#at(row)
    view.setUint32(at + R.kind, KIND.free, true)
    this.#free.push(row)
  }

  close(): void {
    for (const { mapping } of this.#windows) native().munmap(mapping)
    closeSync(this.#fd)
  }

  #take(): number {
    const row = this.#free.pop() ?? this.#rows++
    if (row >= this.#windows.length * WINDOW_ROWS) {
      ftruncateSync(this.#fd, (this.#windows.length + 1) * WINDOW)
      this.#map()
    }
    return row
  }

  #map(): void {
    const mapping = mapFile(this.#fd, { offset: this.#windows.length * WINDOW, length: WINDOW, writable: true })
    const all = new Uint8Array(mapping)
    this.#windows.push({ mapping, bytes: all, view: dataViewOf(all) })
  }

  #at(row: number): { readonly bytes: Uint8Array; readonly view: DataView; readonly at: number } {
    const { bytes: all, view } = this.#windows[Math.floor(row / WINDOW_ROWS)]!
    return { bytes: all, view, at: (row % WINDOW_ROWS) * recordRow.size }
  }

  #read(): void {
    for (let size = fstatSync(this.#fd).size; size >= WINDOW; size -= WINDOW) this.#map()
    for (; this.#rows < this.#windows.length * WINDOW_ROWS; this.#rows++) {
      const { bytes: all, view, at } = this.#at(this.#rows)
      const kind = view.getUint32(at + R.kind, true)
      const row = kind === KIND.free ? undefined : recordRow.decode(all, at)
      if (row && row.kind === KIND.node && row.handleLength <= HANDLE_ROOM) this.nodes.push({ row: this.#rows, ...row, lookups: row.number, handle: row.handle.slice(0, row.handleLength) })
      else if (row && row.kind === KIND.file) this.files.push({ row: this.#rows, nid: row.nid, handle: row.number, flags: row.flags })
      else this.#free.push(this.#rows)
    }
  }
}

function put(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true)
  view.setUint32(at + 4, value / 2 ** 32, true)
}

// Reading a merged directory. A cookie is a hash of the name before it, and names are listed in the order of their hashes: so it means the same
// after names have come and gone, and to another server.

import type { EntrySink } from '../fuse/live-file-system.ts'
import type { OverlayNode } from './node.ts'
import type { Listed, OverlayTree } from './tree.ts'

/** What is remembered between two reads: a directory that does not fit one reply is listed once, from its beginning. */
export interface OpenDirectory { entries: readonly Hashed[] | undefined }

interface Hashed extends Listed { readonly low: number; readonly high: number }

const DIRECTORY = 4
const DOT = 1
const DOTS = 2

/** Gives the entries behind the cookie to `sink`, as long as it has room. @throws NATIVE_SYSCALL */
export function listFrom(tree: OverlayTree, directory: OverlayNode, open: OpenDirectory, cookieLow: number, cookieHigh: number, sink: EntrySink): void {
  if (directory.gone) return
  if (cookieHigh === 0) {
    const parent = directory.place?.parent ?? directory
    if (cookieLow < DOT && !sink.add('.', directory.inoLow, directory.inoHigh, DIRECTORY, DOT, 0)) return
    if (cookieLow < DOTS && !sink.add('..', parent.inoLow, parent.inoHigh, DIRECTORY, DOTS, 0)) return
  }
  if (cookieHigh === 0 || !open.entries) open.entries = hashed(tree.list(directory)) // rewinddir shows what is there now
  for (const { name, type, inoLow, inoHigh, low, high } of open.entries) {
    if (high < cookieHigh || (high === cookieHigh && low <= cookieLow)) continue
    if (!sink.add(name, inoLow, inoHigh, type, low, high)) return
  }
}

function hashed(entries: readonly Listed[]): Hashed[] {
  return entries.map((entry) => ({ ...entry, low: hash(entry.name, 0x811c_9dc5), high: (hash(entry.name, 0x2545_f491) >>> 2) + 1 }))
    .sort((a, b) => a.high - b.high || a.low - b.low)
}

// FNV-1a with a final mix. 62 bits: two names of a directory of a million share one once in ten million such directories.
function hash(name: string, seed: number): number {
  let value = seed
  for (let i = 0; i < name.length; i++) value = Math.imul(value ^ name.charCodeAt(i), 0x0100_0193)
  value = Math.imul(value ^ value >>> 15, 0x85eb_ca6b)
  return (value ^ value >>> 13) >>> 0
}

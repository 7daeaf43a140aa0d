// Which files the user wants first: they lead the blob, and the prefetch table names what was matched exactly.
// SPEC: nydus builder/src/core/prefetch.rs; spec-rafs.md A.10, spec-surface.md A.0 "prefetch line rules".

import { byteString, fromText, toText } from '../core/byte-string.ts'
import { publish } from '../core/diagnostics.ts'
import type { WalkOrder } from '../format/rafs-v6/bootstrap-writer-tree.ts'

export const PREFETCH_POLICIES = ['none', 'fs', 'blob'] as const
export type PrefetchPolicy = (typeof PREFETCH_POLICIES)[number]

/** `fs`: order and table; `blob`: order only. Patterns are absolute paths, byte strings. */
export interface PrefetchOptions { readonly policy: PrefetchPolicy; readonly patterns: readonly string[] }

export interface PrefetchMatch {
  /** Entries of the walk order for the prefetch table, in pattern order. */
  readonly table: number[]
  /** Entries of regular files with data that lie at or below a pattern, in pattern order, then walk order. */
  readonly first: number[]
  /** Whether an entry is in `first`. */
  readonly isFirst: (entry: number) => boolean
}

interface Pattern { readonly children: Map<string, Pattern>; rank: number }

/**
 * Patterns of a list with one path a line (what the programs read from stdin). Blanks around a line are dropped; a path that is not absolute,
 * or lies below an earlier one, is left out with a `build:source:warning`.
 */
export function parsePrefetchPatterns(list: Uint8Array | string): string[] {
  const root: Pattern = { children: new Map(), rank: -1 }
  const patterns: string[] = []
  // The last line needs no end, and an end starts no line.
  const lines = (typeof list === 'string' ? fromText(list) : byteString(list)).replace(/\n$/, '').split('\n')
  for (const line of lines) {
    const path = line.trim()
    const warn = (reason: string) => publish('build:source:warning', { path: toText(path), reason })
    if (!path.startsWith('/')) {
      if (path !== '' || lines.length > 1) warn('prefetch pattern is not an absolute path, ignored')
    } else if (addPattern(root, path, patterns.length)) patterns.push(path)
    else warn('prefetch pattern is covered by an earlier one, ignored')
  }
  return patterns
}

/** Matches patterns against an image. */
export function matchPrefetch(order: WalkOrder, { policy, patterns }: PrefetchOptions): PrefetchMatch {
  if (policy === 'none' || patterns.length === 0) return { table: [], first: [], isFirst: () => false }
  const root: Pattern = { children: new Map(), rank: -1 }
  let ranks = 0
  for (const pattern of patterns) if (addPattern(root, pattern, ranks)) ranks++
  const { nodes, parent } = order
  const exact: (number | undefined)[] = new Array(ranks).fill(undefined)
  const rankOf = new Int32Array(nodes.length).fill(-1)
  // Pattern that stands at a directory's own path; only a few directories have one.
  const at = new Map<number, Pattern>()
  const files: number[] = []
  for (let entry = 0; entry < nodes.length; entry++) {
    const { name, inode } = nodes[entry]!
    const pattern = entry === 0 ? root : at.get(parent[entry]!)?.children.get(name)
    // COMPAT: an empty file is not prefetched, so it does not match either.
    const isEmpty = inode.isRegular && inode.size === 0
    if (pattern !== undefined && inode.isDirectory) at.set(entry, pattern)
    const isExact = pattern !== undefined && pattern.rank >= 0
    rankOf[entry] = isExact ? pattern.rank : entry === 0 ? -1 : rankOf[parent[entry]!]!
    if (isEmpty) continue
    if (isExact) exact[pattern.rank] = entry
    if (inode.isRegular && rankOf[entry]! >= 0) files.push(entry)
  }
  const first = files.sort((a, b) => rankOf[a]! - rankOf[b]!)
  const chosen = new Set(first)
  return { table: policy === 'fs' ? exact.filter((entry) => entry !== undefined) : [], first, isFirst: (entry) => chosen.has(entry) }
}


/** False when an earlier pattern covers `path`. */
function addPattern(root: Pattern, path: string, rank: number): boolean {
  let node = root
  for (const name of path.split('/')) {
    if (node.rank >= 0) return false
    if (name === '' || name === '.') continue
    let child = node.children.get(name)
    if (child === undefined) node.children.set(name, child = { children: new Map(), rank: -1 })
    node = child
  }
  if (node.rank >= 0) return false
  node.rank = rank
  return true
}

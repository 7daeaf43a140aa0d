// A fuzzer that knows the structures: it changes single fields of valid bootstraps, mends what the first checks look at so that most cases get
// deep, and drives every reader over the result. Only coded errors may come out, and soon. Deterministic in its seed.

import { byteString } from '../../src/core/byte-string.ts'
import type { Row, Struct } from '../../src/core/struct.ts'
import { dataViewOf } from '../../src/core/struct.ts'
import { chunkInfoV1, chunkInfoV2 } from '../../src/format/blob/chunk-info.ts'
import { xattrAreaSize } from '../../src/format/erofs/inline-xattrs.ts'
import { chunkIndex, compactInode, dirent, EROFS_LAYOUT, extendedInode, S_IFDIR, S_IFMT, xattrEntry, xattrHeader } from '../../src/format/erofs/inode.ts'
import { deviceSlot, EROFS_SUPER_OFFSET, superBlock } from '../../src/format/erofs/super-block.ts'
import { BLOB_FEATURE, blobEntry } from '../../src/format/rafs-v6/blob-table.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { chunkEntry } from '../../src/format/rafs-v6/chunk-table.ts'
import { EROFS_DEVTABLE_OFFSET, prefetchEntry, RAFS_SUPER_EXT_OFFSET, superBlockExt } from '../../src/format/rafs-v6/super-block-ext.ts'
import { validateTree } from '../../src/format/rafs-v6/validate-tree.ts'
import { below, randomOf, survives } from './hostile.ts'

/** A structure at a place of a bootstrap. */
export interface Site { readonly struct: Struct<readonly Row[]>; readonly at: number }

/** A valid bootstrap and its structures, grouped by kind so that a superblock is hit as often as one of a thousand inodes. */
export interface FuzzBase { readonly name: string; readonly bytes: Uint8Array; readonly sites: readonly (readonly Site[])[] }

/** Finds the structures of a valid bootstrap. */
export function fuzzBase(name: string, bytes: Uint8Array): FuzzBase {
  const view = BootstrapView.open(bytes)
  const { ext, blobs, devices } = view
  const every = (struct: Struct<readonly Row[]>, at: number, count: number) => Array.from({ length: count }, (_, i): Site => ({ struct, at: at + i * struct.size }))
  const inodes = new Map([...validateTree(view)].flatMap(({ node }) => (node ? [[node.inode.nid, node.inode] as const] : [])))
  const sites = { inodes: [] as Site[], entries: [] as Site[], addresses: [] as Site[], xattrs: [] as Site[] }
  for (const inode of inodes.values()) {
    sites.inodes.push({ struct: inode.headerSize === extendedInode.size ? extendedInode : compactInode, at: inode.offset })
    const start = inode.offset + inode.headerSize
    const dataStart = start + xattrAreaSize(inode.xattrCount)
    if (inode.xattrCount > 0) sites.xattrs.push({ struct: xattrHeader, at: start }, { struct: xattrEntry, at: start + xattrHeader.size })
    sites.addresses.push(...every(chunkIndex, inode.offset + Math.ceil((dataStart - inode.offset) / 8) * 8, view.chunkCount(inode)))
    if ((inode.mode & S_IFMT) === S_IFDIR) {
      const block = inode.layout === EROFS_LAYOUT.flatInline && inode.size <= view.blockSize ? dataStart : inode.union * view.blockSize
      sites.entries.push(...every(dirent, block, Math.floor(dataViewOf(bytes).getUint16(block + dirent.offsetOf.nameOffset, true) / dirent.size)))
    }
  }
  return {
    name, bytes,
    sites: [
      every(superBlock, EROFS_SUPER_OFFSET, 1), every(superBlockExt, RAFS_SUPER_EXT_OFFSET, 1), every(deviceSlot, EROFS_DEVTABLE_OFFSET, devices.length),
      every(blobEntry, ext.blobTableOffset, blobs.length), every(chunkEntry, ext.chunkTableOffset, Math.floor(ext.chunkTableSize / chunkEntry.size)),
      every(prefetchEntry, ext.prefetchTableOffset, Math.floor(ext.prefetchTableSize / prefetchEntry.size)), sites.inodes, sites.entries, sites.addresses, sites.xattrs,
      sites.inodes, sites.entries, // twice: these have the most rules
    ].filter((kind) => kind.length > 0),
  }
}

/** A damaged copy of `base`, and the changes as text. */
export function damage(base: FuzzBase, random: () => number): { bytes: Uint8Array; what: string } {
  const bytes = Uint8Array.from(base.bytes)
  const changes: string[] = []
  for (let left = 1 + below(random, 4); left > 0; left--) {
    const kind = base.sites[below(random, base.sites.length)]!
    const { struct, at } = kind[below(random, kind.length)]!
    const row = struct.rows[below(random, struct.rows.length)]!
    changeField(bytes, at + row[0], row[2].size, random)
    changes.push(`${struct.name}.${row[1]}@${at}`)
  }
  if (below(random, 10) > 0) mend(base, bytes)
  const size = below(random, 20) > 0 ? bytes.length : below(random, bytes.length / 512) * 512
  if (size !== bytes.length) changes.push(`cut to ${size}`)
  return { bytes: bytes.subarray(0, size), what: changes.join(', ') }
}

/** Values that break rules: edges, neighbours of what was there, bits, noise, and fields of other structures. */
export function changeField(bytes: Uint8Array, at: number, size: number, random: () => number): void {
  const view = dataViewOf(bytes)
  const width = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1
  const old = readWord(view, at, width)
  const word = [
    () => 0n, () => 1n, () => (1n << BigInt(8 * width)) - 1n, () => 1n << BigInt(8 * width - 1), () => old + 1n, () => old - 1n, () => old ^ (1n << BigInt(below(random, 8 * width))),
    () => old * 2n, () => BigInt(below(random, 2 ** 32)), () => BigInt(below(random, 64)), () => BigInt(below(random, bytes.length)), () => BigInt(4096 * below(random, 16)),
    () => readWord(view, below(random, bytes.length - 8), width),
  ]
  const value = word[below(random, word.length)]!()
  for (let i = 0; i < width; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 0xffn)
}

function readWord(view: DataView, at: number, width: number): bigint {
  let value = 0n
  for (let i = width - 1; i >= 0; i--) value = (value << 8n) | BigInt(view.getUint8(at + i))
  return value
}

/** Makes what `open` checks first true again, where the change was not about that: most cases shall reach the walk. */
function mend({ sites, bytes: original }: FuzzBase, bytes: Uint8Array): void {
  const [superBlocks, extensions] = sites
  const keep = [['magic', 'checksum', 'blockBits', 'extSlots', 'compression', 'xattrBlock', 'featureCompat', 'featureIncompat', 'deviceSlot', 'extraDevices'], ['flags', 'blobTableOffset', 'blobTableSize', 'chunkSize']]
  for (const [i, site] of [superBlocks![0]!, extensions![0]!].entries()) {
    for (const name of keep[i]!) {
      const at = site.at + site.struct.offsetOf[name]!
      bytes.set(original.subarray(at, at + site.struct.rows.find(([, field]) => field === name)![2].size), at)
    }
  }
  const view = dataViewOf(bytes)
  for (const { struct, at } of sites.flat()) {
    if (struct.name !== 'BlobEntry') continue
    bytes.set(original.subarray(at, at + 72), at) // id, index and chunk size
    const { features, chunkCount, ciUncompressedSize } = blobEntry.offsetOf
    const isV2 = (view.getUint32(at + features, true) & BLOB_FEATURE.chunkInfoV2) !== 0
    const size = view.getUint32(at + chunkCount, true) * (isV2 ? chunkInfoV2.size : chunkInfoV1.size)
    view.setUint32(at + ciUncompressedSize, size % 2 ** 32, true)
    view.setUint32(at + ciUncompressedSize + 4, Math.floor(size / 2 ** 32), true)
  }
}

/** Drives all readers over `bytes`; throws coded errors as they come. */
export function readEverything(bytes: Uint8Array, random: () => number): void {
  const view = BootstrapView.open(bytes)
  view.prefetchNids()
  let left = 300 // of the paths that are read in detail: hostile trees alias
  for (const { node } of validateTree(view)) {
    if (node === undefined || left-- <= 0) continue
    const { inode } = node
    survives(() => byteString(view.readlink(inode)), 'readlink')
    survives(() => view.xattrs(inode).map(([name]) => view.xattr(inode, name)), 'xattrs')
    const count = Math.min(view.chunkCount(inode), 100)
    survives(() => { for (let i = 0; i < count; i++) { const { blobIndex, index } = view.chunkAt(inode, i); view.chunkEntry(blobIndex, index) } }, 'chunks')
    survives(() => view.lookup(inode, `x${below(random, 100)}`), 'lookup')
    survives(() => { let seen = 0; for (const { name } of view.entries(inode, below(random, 2) * below(random, 2 ** 24))) { view.lookup(inode, name); if (seen++ > 100) break } }, 'entries')
  }
}

export interface FuzzOutcome { readonly rounds: number; /** Rounds whose superblocks and tables passed. */ readonly opened: number; readonly slowestMs: number }

/** Runs cases until `durationMs` or `rounds` is reached. An uncoded error is thrown with the base, the round and the changes that made it. */
export function fuzzBootstraps(bases: readonly FuzzBase[], { seed, durationMs = Number.POSITIVE_INFINITY, rounds = Number.POSITIVE_INFINITY }: { seed: number; durationMs?: number; rounds?: number }): FuzzOutcome {
  const random = randomOf(seed)
  const end = performance.now() + durationMs
  const outcome = { rounds: 0, opened: 0, slowestMs: 0 }
  for (; outcome.rounds < rounds && performance.now() < end; outcome.rounds++) {
    const base = bases[below(random, bases.length)]!
    const { bytes, what } = damage(base, random)
    const start = performance.now()
    const context = `seed ${seed}, round ${outcome.rounds}, ${base.name}: ${what}`
    if (survives(() => BootstrapView.open(bytes), context)) outcome.opened++
    survives(() => readEverything(bytes, random), context)
    outcome.slowestMs = Math.max(outcome.slowestMs, performance.now() - start)
  }
  return outcome
}

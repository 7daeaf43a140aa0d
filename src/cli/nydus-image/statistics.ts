// Figures of `nydus-image stat`: files, sizes and chunks of an image, and what a second image shares with it.
// COMPAT: keys and counting rules of upstream's JSON (spec-surface A.5): a hard link counts as a file each time, its data once.

import { Buffer } from 'node:buffer'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import type { BootstrapView, Inode } from '../../format/rafs-v6/bootstrap-view.ts'

/** Histogram of file sizes: index = bits of the size, at most this. */
const FILE_SIZE_BITS = 44
/** Chunk sizes for which chunk counts are computed: 2^12 .. 2^20. */
const CHUNK_BITS = { first: 12, last: 20 } as const

export interface ImageStatistics {
  dirs: number; files: number; symlinks: number; chunks: number
  /** Bytes. `uncomp_size` includes `padding_size`: files rounded up to 4 KiB. */
  file_size: number; comp_size: number; uncomp_size: number; padding_size: number
  chunk_sizes: number[]; file_sizes: number[]
  dedup_chunks: number; dedup_comp_size: number; dedup_uncomp_size: number
  own_chunks: number; own_comp_size: number; own_uncomp_size: number
  ref_chunks: number; ref_comp_size: number; ref_uncomp_size: number
}

export interface StatisticsReport {
  dedup_enabled: boolean
  target_enabled: boolean
  base_image: ImageStatistics
  target_image: ImageStatistics
}

interface Chunk { readonly compressed: number; readonly uncompressed: number; uses: number }

/** Collects base images and at most one target image; `report()` closes the sums. */
export class Statistics {
  readonly #base = empty()
  readonly #target = empty()
  readonly #chunks = new Map<string, Chunk>()
  #baseImages = 0
  #hasTarget = false

  /** Adds a base image. FORMAT_* when it is damaged. */
  addBase(view: BootstrapView): void {
    this.#baseImages++
    for (const [id, chunk] of collect(view, this.#base)) {
      own(this.#base, chunk)
      const known = this.#chunks.get(id)
      if (known) known.uses++
      else this.#chunks.set(id, { ...chunk, uses: 1 })
    }
  }

  /** The image whose chunks are looked up in the base images. FORMAT_* when it is damaged. */
  setTarget(view: BootstrapView): void {
    this.#hasTarget = true
    for (const [id, chunk] of collect(view, this.#target)) {
      if (!this.#chunks.has(id)) { own(this.#target, chunk); continue }
      this.#target.ref_chunks++
      this.#target.ref_comp_size += chunk.compressed
      this.#target.ref_uncomp_size += chunk.uncompressed
    }
  }

  report(): StatisticsReport {
    const base = { ...this.#base, uncomp_size: this.#base.uncomp_size + this.#base.padding_size }
    const target = { ...this.#target, uncomp_size: this.#target.uncomp_size + this.#target.padding_size }
    const dedup = this.#baseImages > 1
    if (dedup) {
      for (const chunk of this.#chunks.values()) {
        base.dedup_chunks++
        base.dedup_comp_size += chunk.compressed
        base.dedup_uncomp_size += chunk.uncompressed
      }
    }
    return { dedup_enabled: dedup, target_enabled: this.#hasTarget, base_image: base, target_image: target }
  }
}

/** The report as text: the target first, as upstream prints it. */
export function statisticsText(report: StatisticsReport): string {
  const parts = report.target_enabled ? [`Target Image Statistics:\n${imageText(report.target_image)}`] : []
  return [...parts, `Base Image Statistics:\n${imageText(report.base_image)}`].join('\n\n')
}

function imageText(image: ImageStatistics): string {
  const rows = (entries: readonly (readonly [string, number])[]) => entries.map(([label, value]) => `${`${label}:`.padEnd(24)}${value}`)
  const histogram = (counts: readonly number[], first: number) => counts.map((count, i) => `${`${i + first}:`.padEnd(24)}${count}`)
  return [
    '',
    ...rows([['Directories', image.dirs], ['Files', image.files], ['Symlinks', image.symlinks], ['Chunks', image.chunks], ['File Size', image.file_size],
      ['Padding Size', image.padding_size], ['Uncompressed Size', image.uncomp_size], ['Compressed Size', image.comp_size]]),
    '', 'File Size Bits:         File Count:', ...histogram(image.file_sizes, 0),
    '', 'Chunk Size Bits:        Chunk Count:', ...histogram(image.chunk_sizes, CHUNK_BITS.first), '',
    ...rows([['Dedup Comp Size', image.dedup_comp_size], ['Dedup Uncomp Size', image.dedup_uncomp_size], ['Dedup Chunk Count', image.dedup_chunks],
      ['Owned Comp Size', image.own_comp_size], ['Owned Uncomp Size', image.own_uncomp_size], ['Owned Chunk Count', image.own_chunks],
      ['Referenced Comp Size', image.ref_comp_size], ['Referenced Uncomp Size', image.ref_uncomp_size], ['Referenced Chunk Count', image.ref_chunks]]),
    '',
  ].join('\n')
}

function empty(): ImageStatistics {
  return {
    dirs: 0, files: 0, symlinks: 0, chunks: 0, file_size: 0, comp_size: 0, uncomp_size: 0, padding_size: 0,
    chunk_sizes: new Array<number>(CHUNK_BITS.last - CHUNK_BITS.first + 1).fill(0), file_sizes: new Array<number>(FILE_SIZE_BITS + 1).fill(0),
    dedup_chunks: 0, dedup_comp_size: 0, dedup_uncomp_size: 0, own_chunks: 0, own_comp_size: 0, own_uncomp_size: 0,
    ref_chunks: 0, ref_comp_size: 0, ref_uncomp_size: 0,
  }
}

function own(image: ImageStatistics, chunk: { readonly compressed: number; readonly uncompressed: number }): void {
  image.own_chunks++
  image.own_comp_size += chunk.compressed
  image.own_uncomp_size += chunk.uncompressed
}

/** Counts one image into `image`; its distinct chunks by digest. */
function collect(view: BootstrapView, image: ImageStatistics): Map<string, { readonly compressed: number; readonly uncompressed: number }> {
  const chunks = new Map<string, { compressed: number; uncompressed: number }>()
  const counted = new Set<number>()
  const directories = [view.rootNid]
  const entered = new Set(directories)
  image.dirs++
  for (let nid = directories.pop(); nid !== undefined; nid = directories.pop()) {
    for (const { name, nid: child } of view.entries(view.inode(nid))) {
      if (name === '.' || name === '..') continue
      const inode = view.inode(child)
      const kind = inode.mode & S_IFMT
      if (kind === S_IFDIR) {
        image.dirs++
        if (!entered.has(child)) directories.push(child)
        entered.add(child)
      } else if (kind === S_IFLNK) {
        image.symlinks++
      } else if (kind === S_IFREG) {
        image.files++
        if (inode.nlink > 1 && counted.has(child)) continue
        counted.add(child)
        countFile(view, inode, image, chunks)
      }
    }
  }
  return chunks
}

function countFile(view: BootstrapView, inode: Inode, image: ImageStatistics, chunks: Map<string, { compressed: number; uncompressed: number }>): void {
  const bits = inode.size === 0 ? 0 : Math.floor(Math.log2(inode.size)) + 1
  image.file_sizes[Math.min(bits, FILE_SIZE_BITS)]!++
  image.file_size += inode.size
  image.padding_size += Math.ceil(inode.size / 4096) * 4096 - inode.size
  for (let sizeBits = CHUNK_BITS.first; sizeBits <= CHUNK_BITS.last; sizeBits++) image.chunk_sizes[sizeBits - CHUNK_BITS.first]! += Math.ceil(inode.size / 2 ** sizeBits)
  const count = view.chunkCount(inode)
  image.chunks += count
  for (let i = 0; i < count; i++) {
    const { blobIndex, index } = view.chunkAt(inode, i)
    const entry = view.chunkEntry(blobIndex, index)
    if (!entry) continue
    image.comp_size += entry.compressedSize
    image.uncomp_size += entry.uncompressedSize
    chunks.set(Buffer.from(entry.digest).toString('latin1'), { compressed: entry.compressedSize, uncompressed: entry.uncompressedSize })
  }
}

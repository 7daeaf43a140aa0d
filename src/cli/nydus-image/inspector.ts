// The commands of `nydus-image inspect`, as text and JSON. SPEC: spec-surface.md A.4; vectors/inspect has upstream's answers.

import { fromText, toText } from '../../core/byte-string.ts'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import { COMPRESSORS, DIGESTERS } from '../../format/rafs-v6/blob-table.ts'
import type { BootstrapView, Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { featureWords } from './blob-features.ts'
import { quoted } from './rust-text.ts'

export const INSPECT_USAGE = `
    stats:              Display RAFS filesystem metadata
    ls:                 Show files in current directory
    cd DIR:             Change current directory
    stat FILE_NAME:     Show particular information of RAFS file
    blobs:              Show blob table
    prefetch:           Show prefetch table
    chunk OFFSET:       List basic info of a single chunk together with a list of files that share it
    icheck INODE:       Show path of the inode and basic information
    exit:               Exit
`

/** `text` is printed as it is; `json` is what request mode prints after it (null for commands that only print). */
export interface Answer { readonly text: string; readonly json: unknown; readonly unknown?: boolean; readonly exit?: boolean }

interface Place { readonly path: string; readonly name: string; readonly parent: number; readonly inode: Inode }

/** Answers commands about one image; keeps the current directory between them. */
export class Inspector {
  readonly #view: BootstrapView
  readonly #requestMode: boolean
  #trail: number[] = []

  constructor(view: BootstrapView, options: { readonly requestMode: boolean }) {
    this.#view = view
    this.#requestMode = options.requestMode
  }

  get #directory(): number {
    return this.#trail.at(-1) ?? this.#view.rootNid
  }

  /** Runs one command line. FORMAT_* when the image is damaged where the command looks. */
  execute(line: string): Answer {
    const [command, ...rest] = line.trim().split(/\s+/)
    const argument = rest.join(' ')
    switch (command) {
      case '': case undefined: return print('')
      case 'help': return print(INSPECT_USAGE)
      case 'exit': case 'q': return { text: '', json: null, exit: true }
      case 'stats': return this.#stats()
      case 'ls': return this.#list()
      case 'cd': return this.#change(argument)
      case 'stat': return this.#stat(argument)
      case 'blobs': return this.#blobs()
      case 'prefetch': return this.#prefetch()
      case 'chunk': return /^\d+$/.test(argument) ? this.#chunk(Number(argument)) : wrong('Wrong OFFSET is specified. Is it a valid u64 value?\n')
      case 'icheck': return /^\d+$/.test(argument) ? this.#icheck(Number(argument)) : wrong('Wrong INODE is specified. Is it a inode number?\n')
      default: return wrong(`Unsupported command: ${command}\n${INSPECT_USAGE}`)
    }
  }

  #stats(): Answer {
    const { superBlock, ext, flags, rootNid, chunkSize } = this.#view
    if (this.#requestMode) return { text: '', json: { inodes_count: Number(superBlock.inodeCount) } }
    const hex = (value: number) => `0x${value.toString(16)}`
    return print(table([
      ['Version', '6'], ['Inodes Count', superBlock.inodeCount], ['Chunk Size', `${chunkSize / 1024}KB`], ['Root Inode', rootNid], ['Flags', hex(flags)],
      ['Blob table offset', hex(ext.blobTableOffset)], ['Blob table size', hex(ext.blobTableSize)],
      ['Prefetch table offset', hex(ext.prefetchTableOffset)], ['Prefetch table entries', hex(ext.prefetchTableSize / 4)],
      ['Chunk table offset', hex(ext.chunkTableOffset)], ['Chunk table size', hex(ext.chunkTableSize)],
    ]))
  }

  #list(): Answer {
    let text = ''
    for (const { name, inode } of this.#children(this.#directory)) {
      const kind = inode.mode & S_IFMT
      const sign = kind === S_IFREG ? '-' : kind === S_IFDIR ? 'd' : kind === S_IFLNK ? 'l' : ' '
      text += `${sign}    ${String(inode.nid).padEnd(8)} ${quoted(name)}\n`
    }
    return print(text)
  }

  #change(path: string): Answer {
    const saved = [...this.#trail]
    if (path.startsWith('/')) this.#trail = []
    for (const part of path.split('/').filter((one) => one !== '' && one !== '.')) {
      if (part === '..') { this.#trail.pop(); continue }
      const found = this.#view.lookup(this.#view.inode(this.#directory), fromText(part))
      if (!found || (this.#view.inode(found.nid).mode & S_IFMT) !== S_IFDIR) {
        this.#trail = saved
        return print(`${path} is ${found ? 'not a directory' : 'not found'}\n`)
      }
      this.#trail.push(found.nid)
    }
    return print('')
  }

  #stat(path: string): Answer {
    const place = this.#find(path)
    if (!place) return print(`${path} is not found\n`)
    let text = describe(place)
    const count = this.#view.chunkCount(place.inode)
    if ((place.inode.mode & S_IFMT) === S_IFREG) text += '  Chunk list:\n'
    for (let i = 0; i < count; i++) {
      const chunk = this.#chunkOf(place.inode, i)
      text += `        ${i} ->
        file offset: ${i * this.#view.chunkSize}, chunk index: ${chunk.index}
        compressed size: ${chunk.compressedSize}, decompressed size: ${chunk.uncompressedSize}
        compressed offset: ${chunk.compressedOffset}, decompressed offset: ${chunk.uncompressedOffset}
        blob id: ${chunk.blobId}
        chunk id: ${chunk.id}\n`
    }
    return print(text)
  }

  #blobs(): Answer {
    if (this.#requestMode) {
      return { text: '', json: this.#view.blobs.map(({ blobId, entry }) => ({ blob_id: blobId, compressed_size: entry.compressedSize,
        decompressed_size: entry.uncompressedSize, readahead_offset: 0, readahead_size: 0 })) }
    }
    return print(this.#view.blobs.map(({ index, blobId, entry }) => table([
      ['Blob Index', index], ['Blob ID', blobId], ['Blob Size', entry.compressedSize], ['Uncompressed Data Size', entry.uncompressedSize],
      ['Features', featureWords(entry.features)], ['Compressor', COMPRESSORS[entry.compressor] ?? entry.compressor], ['Digester', DIGESTERS[entry.digester] ?? entry.digester],
      ['Chunk Size', `0x${entry.chunkSize.toString(16)}`], ['Chunk Count', entry.chunkCount],
      ['Meta Compressor', COMPRESSORS[entry.ciCompressor] ?? entry.ciCompressor], ['Meta Offset', entry.ciOffset],
      ['Meta Compressed Size', entry.ciCompressedSize], ['Meta Uncompressed Size', entry.ciUncompressedSize],
      ['ToC Digest', hexOf(entry.tocDigest)], ['ToC Size', entry.tocSize], ['RAFS Blob Digest', hexOf(entry.metaDigest)],
    ])).join(''))
  }

  #prefetch(): Answer {
    const nids = this.#view.prefetchNids()
    const wanted = new Set(nids)
    const paths = new Map<number, string[]>()
    for (const { path, inode } of this.#walk()) {
      if (wanted.has(inode.nid)) paths.set(inode.nid, [...(paths.get(inode.nid) ?? []), (inode.mode & S_IFMT) === S_IFDIR && path !== '/' ? `${path}/` : path])
    }
    const rows = nids.map((nid) => ({ inode: nid, path: (paths.get(nid) ?? []).map(toText) }))
    if (this.#requestMode) return { text: '', json: rows }
    return print([`Total Prefetching Files: ${rows.length}`, ...rows.map((row) => `Inode Number:${String(row.inode).padStart(10)} | Path: "${row.path.join(' ')}"`), ''].join('\n'))
  }

  #chunk(offset: number): Answer {
    let text = ''
    for (const { path, name, inode } of this.#walk()) {
      for (let i = 0, count = this.#view.chunkCount(inode); i < count; i++) {
        const chunk = this.#chunkOf(inode, i)
        if (chunk.compressedOffset !== offset) continue
        const parent = path.slice(0, path.length - name.length)
        text += `
File: ${toText(name).padEnd(32)} Parent Path: ${toText(parent).padEnd(32)}
Compressed Offset: ${chunk.compressedOffset}, Compressed Size: ${chunk.compressedSize}
Decompressed Offset: ${chunk.uncompressedOffset}, Decompressed Size: ${chunk.uncompressedSize}
Chunk ID: ${chunk.id.padEnd(50)},
Blob ID: ${chunk.blobId}\n\n`
      }
    }
    return print(text)
  }

  #icheck(nid: number): Answer {
    let text = ''
    for (const place of this.#walk()) if (place.inode.nid === nid) text += `${toText(place.path)}\n${describe(place)}`
    return print(text)
  }

  #find(path: string): Place | undefined {
    let nid = path.startsWith('/') ? this.#view.rootNid : this.#directory
    let place: Place = { path: '/', name: '/', parent: nid, inode: this.#view.inode(nid) }
    for (const part of path.split('/').filter((one) => one !== '' && one !== '.')) {
      if ((place.inode.mode & S_IFMT) !== S_IFDIR) return undefined
      const found = this.#view.lookup(place.inode, fromText(part))
      if (!found) return undefined
      place = { path: part, name: fromText(part), parent: nid, inode: this.#view.inode(found.nid) }
      nid = found.nid
    }
    return place
  }

  *#children(nid: number): IterableIterator<{ readonly name: string; readonly inode: Inode }> {
    for (const { name, nid: child } of this.#view.entries(this.#view.inode(nid))) {
      if (name !== '.' && name !== '..') yield { name, inode: this.#view.inode(child) }
    }
  }

  /** Every path below the root, depth first; a directory that was already seen (a damaged image) is not entered again. */
  *#walk(): IterableIterator<Place> {
    const root = this.#view.inode(this.#view.rootNid)
    const entered = new Set([root.nid])
    const stack: Place[] = [{ path: '/', name: '/', parent: root.nid, inode: root }]
    for (let place = stack.pop(); place; place = stack.pop()) {
      yield place
      const { path, inode } = place
      if ((inode.mode & S_IFMT) !== S_IFDIR) continue
      const children = [...this.#children(inode.nid)].map((child) => ({ ...child, path: `${path === '/' ? '' : path}/${child.name}`, parent: inode.nid }))
      for (const child of children.reverse()) {
        if ((child.inode.mode & S_IFMT) === S_IFDIR) {
          if (entered.has(child.inode.nid)) continue
          entered.add(child.inode.nid)
        }
        stack.push(child)
      }
    }
  }

  #chunkOf(inode: Inode, i: number) {
    const address = this.#view.chunkAt(inode, i)
    const entry = this.#view.chunkEntry(address.blobIndex, address.index)
    return {
      index: address.index,
      blobId: this.#view.blobs[address.blobIndex]?.blobId ?? `unknown blob ${address.blobIndex}`,
      id: entry ? hexOf(entry.digest) : '',
      compressedOffset: entry?.compressedOffset ?? 0, compressedSize: entry?.compressedSize ?? 0,
      uncompressedOffset: address.uncompressedOffset, uncompressedSize: entry?.uncompressedSize ?? 0,
    }
  }
}

function print(text: string): Answer {
  return { text, json: null }
}

function wrong(text: string): Answer {
  return { text, json: null, unknown: true }
}

function table(rows: readonly (readonly [label: string, value: unknown])[]): string {
  return `\n${rows.map(([label, value]) => `${`${label}:`.padEnd(24)}${String(value)}\n`).join('')}`
}

function describe({ name, parent, inode }: Place): string {
  const rows = [
    ['Inode Number', inode.nid], ['Name', quoted(name)], ['Size', inode.size], ['Parent', parent], ['Mode', `0x${inode.mode.toString(16).toUpperCase()}`],
    ['Permissions', inode.mode.toString(8)], ['Nlink', inode.nlink], ['UID', inode.uid], ['GID', inode.gid], ['Mtime', inode.mtime],
    ['MtimeNsec', inode.mtimeNsec], ['Blocks', Math.ceil(inode.size / 512)],
  ] as const
  return `\n${rows.map(([label, value]) => `${`${label}:`.padEnd(20)}${value}\n`).join('')}`
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}


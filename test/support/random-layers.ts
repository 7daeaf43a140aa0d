// Random stacks of layers as tars, and their independent extraction by umoci. A stack is made of small choices, so that fast-check can shrink it.

import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { seal } from '../../src/format/tar/header.ts'
import { writePax } from '../../src/format/tar/pax.ts'
import { encodeEntry, endBlocks, padding } from '../../src/format/tar/writer.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { makeTar, type TarItem } from './built-image.ts'
import type { TreeEntry } from './expect.ts'

/** What every run has to contain often enough. */
export const KINDS = ['opaque', 'type change', 'whiteout', 'whiteout through a link', 'hard link across layers', 'hard link', 'binary xattr', 'name that is no UTF-8', 'sparse', 'many chunks'] as const
export type Kind = (typeof KINDS)[number]
export type Reach = Map<Kind, number>

export interface Choice { readonly op: Op; readonly place: number; readonly name: number; readonly size: number; readonly seed: number }
/** Rare ones stand here more than once: what they need is not always there. */
const OPS = [
  'file', 'file', 'many', 'sparse', 'directory', 'directory', 'symlink', 'link to directory', 'link to directory', 'device', 'link', 'lower link', 'whiteout',
  'whiteout through link', 'whiteout through link', 'whiteout through link', 'opaque', 'opaque', 'replace',
] as const
type Op = (typeof OPS)[number]

/** One to four layers of choices. */
export const stackArbitrary: fc.Arbitrary<Choice[][]> = fc.array(
  fc.array(fc.record({ op: fc.constantFrom(...OPS), place: fc.nat(1000), name: fc.nat(1000), size: fc.nat(9000), seed: fc.nat(1_000_000) }), { minLength: 5, maxLength: 30, size: 'max' }),
  { minLength: 2, maxLength: 4, size: 'max' },
)

const NAMES = ['a', 'b', 'c', 'lib', 'x-y', '+', 'n\xff\xfe', 'caf\xc3\xa9', 'tail', 'z']
const OWNERS = [0, 0, 1000, 65_536]

/** One layer under construction; `below` is the tree of the layers under it. */
class LayerWriter {
  readonly #below: readonly TreeEntry[]
  readonly #reach: Reach
  readonly #items: (TarItem | Buffer)[] = []
  /** Paths of this layer by type; nothing is said twice, so that the order of entries does not matter. */
  readonly #own = new Map<string, string>()
  readonly #hidden: string[] = []

  constructor(below: readonly TreeEntry[], reach: Reach) {
    this.#below = below
    this.#reach = reach
  }

  add(choice: Choice): void {
    switch (choice.op) {
      case 'file': this.#file(choice, choice.size); break
      case 'many': if (this.#file(choice, 60_000 + choice.size)) this.#count('many chunks'); break
      case 'sparse': this.#sparse(choice); break
      case 'directory': this.#put(choice, { type: 'directory', mode: 0o700 + (choice.seed % 64) }); break
      case 'symlink': this.#put(choice, { type: 'symlink', mode: 0o777, link: NAMES[choice.seed % NAMES.length]! }); break
      case 'link to directory': this.#linkToDirectory(choice); break
      case 'device': this.#put(choice, choice.seed % 2 === 0 ? { type: 'fifo' } : { type: 'character', rdevMajor: 1, rdevMinor: choice.seed % 300 }); break
      case 'link': this.#link(choice); break
      case 'lower link': this.#lowerLink(choice); break
      case 'whiteout': this.#whiteout(choice); break
      case 'whiteout through link': this.#whiteoutThroughLink(choice); break
      case 'opaque': this.#opaque(choice); break
      case 'replace': this.#replace(choice); break
    }
  }

  tar(): Buffer {
    const ends = endBlocks().length
    const parts = this.#items.map((item) => (Buffer.isBuffer(item) ? item : makeTar([item]).subarray(0, -ends)))
    return Buffer.concat([...parts, endBlocks()])
  }

  #count(kind: Kind): void {
    this.#reach.set(kind, (this.#reach.get(kind) ?? 0) + 1)
  }

  #file(choice: Choice, size: number, directory = this.#directory(choice)): boolean {
    const data = Buffer.alloc(size, `${choice.seed} `)
    const xattrs: [string, Buffer][] = choice.seed % 3 === 0 ? [['user.note', Buffer.from([0, 255, 10, choice.seed % 256])], ['trusted.t', Buffer.from('1')]] : []
    const done = this.#put(choice, { data, xattrs, mode: 0o600 + (choice.seed % 64) }, directory)
    if (done && xattrs.length > 0) this.#count('binary xattr')
    return done
  }

  /** Adds an entry in `directory`; false when something of this layer is in the way. */
  #put({ name, seed }: Choice, item: Omit<TarItem, 'path'>, directory = this.#directory({ place: seed })): boolean {
    const base = NAMES[name % NAMES.length]!
    const full = directory === '' ? base : `${directory}/${base}`
    const before = this.#below.find((entry) => entry.path === `/${full}`)
    if (this.#own.has(full) || this.#isHidden(full) || (before !== undefined && before.type === 'dir' && item.type !== 'directory' && this.#hasOwnBelow(full))) return false
    this.#own.set(full, item.type ?? 'file')
    const owner = OWNERS[seed % OWNERS.length]!
    this.#items.push({ uid: owner, gid: owner, mtime: 1_000_000_000 + seed, ...item, path: full })
    if (before !== undefined && (before.type === 'dir') !== (item.type === 'directory')) {
      this.#count('type change')
      this.#hidden.push(full)
    }
    if (/[\x80-\xff]/.test(base) && base.includes('\xff')) this.#count('name that is no UTF-8')
    return true
  }

  /** A directory to put something into: one of this layer or below, named in this layer or only passed through. */
  #directory({ place }: Pick<Choice, 'place'>): string {
    const own = [...this.#own].filter(([, type]) => type === 'directory').map(([full]) => full)
    const below = this.#below.filter(({ type, path: full }) => type === 'dir' && full !== '/' && !this.#isHidden(full.slice(1)) && !this.#isShadowed(full.slice(1))).map(({ path: full }) => full.slice(1))
    const all = ['', ...own, ...below]
    return all[place % all.length]!
  }

  #sparse(choice: Choice): void {
    const base = NAMES[choice.name % NAMES.length]!
    if (this.#own.has(base) || this.#isHidden(base) || this.#below.some((entry) => entry.path === `/${base}`)) return
    this.#own.set(base, 'file')
    this.#items.push(sparseMember(base, { size: 30_000 + choice.size, at: 8192 + (choice.seed % 10_000), data: Buffer.from(`data ${choice.seed}`), mtime: 1_000_000_000 + choice.seed }))
    this.#count('sparse')
  }

  #linkToDirectory(choice: Choice): void {
    const target = this.#directory(choice)
    if (target === '') return
    this.#file({ ...choice, name: choice.seed }, 5, target)
    this.#put({ ...choice, seed: choice.seed - (choice.seed % 7) }, { type: 'symlink', mode: 0o777, link: choice.seed % 2 === 0 ? `/${target}` : target }, '')
  }

  #link(choice: Choice): void {
    const files = this.#items.filter((item): item is TarItem => !Buffer.isBuffer(item) && (item.type ?? 'file') === 'file' && !path.basename(item.path).startsWith('.wh.'))
    const target = files[choice.place % Math.max(files.length, 1)]
    if (target === undefined || path.basename(target.path) === NAMES[choice.name % NAMES.length]) return
    const { data: _data, ...header } = target
    if (this.#put(choice, { ...header, xattrs: [], type: 'hardlink', link: target.path })) this.#count('hard link')
  }

  #lowerLink(choice: Choice): void {
    const files = this.#below.filter(({ type, path: full }) => type === 'reg' && !this.#own.has(full.slice(1)) && !this.#isHidden(full.slice(1)) && !this.#isShadowed(full.slice(1)))
    const target = files[choice.place % Math.max(files.length, 1)]
    if (target === undefined || path.basename(target.path) === NAMES[choice.name % NAMES.length]) return
    const header = { mode: target.mode, uid: target.uid, gid: target.gid, mtime: target.mtime![0] }
    this.#hidden.push(target.path.slice(1)) // stays as it is in this layer
    if (this.#put(choice, { ...header, type: 'hardlink', link: target.path.slice(1) })) this.#count('hard link across layers')
  }

  #whiteout({ place }: Choice): void {
    const target = this.#lower(place, () => true)
    if (target === undefined) return
    this.#hide(target.path.slice(1))
    this.#items.push({ path: `${path.dirname(target.path).slice(1)}/.wh.${path.basename(target.path)}`, mtime: 1 })
    this.#count('whiteout')
  }

  #whiteoutThroughLink({ place }: Choice): void {
    const links = this.#below.filter(({ type, target, path: full }) => type === 'lnk' && path.dirname(full) === '/' && this.#isUntouched(full.slice(1)) && this.#childOf(target!) !== undefined)
    const link = links[place % Math.max(links.length, 1)]
    if (link === undefined) return
    const child = this.#childOf(link.target!)!
    this.#hide(child.path.slice(1))
    this.#hidden.push(link.path.slice(1))
    this.#items.push({ path: `${link.path.slice(1)}/.wh.${path.basename(child.path)}`, mtime: 1 })
    this.#count('whiteout through a link')
  }

  /** Something right below the directory that a root's link leads to, which this layer does not touch. */
  #childOf(target: string): TreeEntry | undefined {
    const directory = target.startsWith('/') ? target : `/${target}`
    if (!this.#below.some(({ type, path: full }) => type === 'dir' && full === directory)) return undefined
    return this.#below.find(({ path: full }) => path.dirname(full) === directory && this.#isUntouched(full.slice(1)) && !this.#isShadowed(full.slice(1)))
  }

  #opaque(choice: Choice): void {
    const target = this.#lower(choice.place, ({ type }) => type === 'dir')
    if (target === undefined) return
    const full = target.path.slice(1)
    this.#own.set(full, 'directory')
    this.#items.push({ path: full, type: 'directory', mtime: 1_000_000_000 + choice.seed }, { path: `${full}/.wh..wh..opq`, mtime: 1 })
    this.#file({ ...choice, name: choice.seed }, 10, full)
    this.#hidden.push(...this.#below.filter((entry) => entry.path.startsWith(`${target.path}/`)).map((entry) => entry.path.slice(1)))
    this.#count('opaque')
  }

  #replace(choice: Choice): void {
    const target = this.#lower(choice.place, () => true)
    if (target === undefined) return
    const full = target.path.slice(1)
    const slash = full.lastIndexOf('/')
    const name = NAMES.indexOf(full.slice(slash + 1))
    if (name < 0) return
    this.#put({ ...choice, name }, target.type === 'dir' ? { data: 'a file now' } : { type: 'directory' }, slash < 0 ? '' : full.slice(0, slash))
  }

  #lower(place: number, wanted: (entry: TreeEntry) => boolean): TreeEntry | undefined {
    const found = this.#below.filter((entry) => entry.path !== '/' && this.#isUntouched(entry.path.slice(1)) && !this.#isShadowed(entry.path.slice(1)) && wanted(entry))
    return found[place % Math.max(found.length, 1)]
  }

  #hide(full: string): void {
    this.#hidden.push(full)
  }

  /** Neither said, nor hidden, and nothing of this layer below it. */
  #isUntouched(full: string): boolean {
    return !this.#own.has(full) && !this.#isHidden(full) && !this.#hasOwnBelow(full)
  }

  #hasOwnBelow(full: string): boolean {
    return [...this.#own.keys(), ...this.#hidden].some((own) => own.startsWith(`${full}/`))
  }

  #isHidden(full: string): boolean {
    return this.#hidden.some((hidden) => full === hidden || full.startsWith(`${hidden}/`))
  }

  /** Below something of this layer that is no directory. */
  #isShadowed(full: string): boolean {
    return [...this.#own].some(([own, type]) => type !== 'directory' && full.startsWith(`${own}/`))
  }
}

/** The tar of one layer. */
export function layerTar(choices: readonly Choice[], below: readonly TreeEntry[], reach: Reach): Buffer {
  const layer = new LayerWriter(below, reach)
  for (const choice of choices) layer.add(choice)
  return layer.tar()
}

/** A member in GNU's sparse format 1.0: one piece of data in a file of holes. */
function sparseMember(name: string, { size, at, data, mtime }: { size: number; at: number; data: Buffer; mtime: number }): Buffer {
  const records = writePax([['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.name', name], ['GNU.sparse.realsize', String(size)]].map(([key, value]) => [key!, Buffer.from(value!, 'latin1')] as const))
  const header = Buffer.from(encodeEntry({ path: 'PaxHeaders/sparse', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime, size: records.length }))
  header[156] = 'x'.charCodeAt(0)
  seal(header)
  const map = Buffer.alloc(512)
  map.write(`1\n${at}\n${data.length}\n`)
  const stored = map.length + data.length
  return Buffer.concat([header, records, padding(records.length), encodeEntry({ path: 'GNUSparseFile/file', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime, size: stored }), map, data, padding(stored)])
}

/** Extracts layers one after the other with umoci below `directory`; returns the root file system. */
export function extractWithUmoci(layers: readonly Buffer[], directory: string): string {
  const blobs = path.join(directory, 'oci/blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const put = (mediaType: string, bytes: Buffer) => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    writeFileSync(path.join(blobs, hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const json = (value: unknown) => Buffer.from(JSON.stringify(value))
  const described = layers.map((layer) => put(MEDIA_TYPE.ociLayer, layer))
  const config = put(MEDIA_TYPE.ociConfig, json({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: described.map(({ digest }) => digest) } }))
  const manifest = put(MEDIA_TYPE.ociManifest, json({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config, layers: described }))
  writeFileSync(path.join(directory, 'oci/oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(path.join(directory, 'oci/index.json'), json({ schemaVersion: 2, manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'latest' } }] }))
  execFileSync('umoci', ['unpack', '--image', `${path.join(directory, 'oci')}:latest`, path.join(directory, 'bundle')], { stdio: ['ignore', 'pipe', 'pipe'] })
  return path.join(directory, 'bundle/rootfs')
}

// The trees that fixtures/vectors/expect/*.jsonl describe (see scan.py there), and the comparison of anything that can walk a tree with them:
// a bootstrap, a mount, the library, an unpacked directory.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { byteString, compareBytes, fromText, toText } from '../../src/core/byte-string.ts'
import {
  decodeDevice, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
} from '../../src/format/erofs/inode.ts'
import type { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'

/** fixtures/vectors */
export const VECTORS = path.resolve(import.meta.dirname, '../../fixtures/vectors')

export const KINDS = { [S_IFREG]: 'reg', [S_IFDIR]: 'dir', [S_IFLNK]: 'lnk', [S_IFCHR]: 'chr', [S_IFBLK]: 'blk', [S_IFIFO]: 'fifo', [S_IFSOCK]: 'sock' } as const
export type Kind = (typeof KINDS)[keyof typeof KINDS]

/** One path of a tree. A field that is undefined is not known, and not compared. Names are byte strings. */
export interface TreeEntry {
  /** From the root, which is "/". */
  readonly path: string
  readonly type: Kind
  /** 12 bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime?: readonly [seconds: number, nanoseconds: number]
  readonly size?: number
  readonly nlink?: number
  readonly rdev?: readonly [major: number, minor: number]
  readonly target?: string
  /** Name -> value in hex. */
  readonly xattrs?: Readonly<Record<string, string>>
  readonly sha256?: string
  /** The first path (bytewise) of the same inode, '' when this is the first. */
  readonly sameAs?: string
}

/** Anything whose tree can be compared. */
export interface TreeProvider { walk(): Iterable<TreeEntry> | AsyncIterable<TreeEntry> }

/** The tree of fixtures/vectors/expect/`name`.jsonl. */
export function loadExpect(name: string): TreeEntry[] {
  return parseScan(readFileSync(path.join(VECTORS, 'expect', `${name}.jsonl`), 'utf8'))
}

/** The tree that a case of fixtures/vectors shows, or undefined for a case without one. */
export function expectOfCase(name: string): TreeEntry[] | undefined {
  const about: { expect?: string } = JSON.parse(readFileSync(path.join(VECTORS, name, 'case.json'), 'utf8'))
  return about.expect === undefined ? undefined : loadExpect(path.basename(about.expect, '.jsonl'))
}

/** A directory or mount, described by scan.py: by code that is not ours. Throws when an entry cannot be read. */
export function scanDirectory(root: string): TreeEntry[] {
  return parseScan(execFileSync('python3', [path.join(VECTORS, 'scan.py'), root], { encoding: 'utf8', maxBuffer: 2 ** 30 }))
}

/** Lines of scan.py. Throws for a line that says an entry could not be read. */
export function parseScan(text: string): TreeEntry[] {
  return text.split('\n').filter((line) => line !== '').map((line) => {
    const raw = JSON.parse(line) // scan.py documents the keys
    if (raw.error !== undefined) throw new Error(`${line}`)
    const bytes = (key: string): string | undefined =>
      raw[`${key}_hex`] === undefined ? raw[key] && fromText(raw[key]) : byteString(Buffer.from(raw[`${key}_hex`], 'hex'))
    return {
      path: bytes('path')!, type: raw.type, mode: Number.parseInt(raw.mode, 8), uid: raw.uid, gid: raw.gid, mtime: raw.mtime, size: raw.size, nlink: raw.nlink,
      ...(raw.rdev && { rdev: raw.rdev }), ...(raw.type === 'lnk' && { target: bytes('target')! }), xattrs: raw.xattrs ?? {},
      ...(raw.sha256 && { sha256: raw.sha256 }), sameAs: bytes('same_as') ?? '',
    }
  })
}

/** Metadata of an image; contents are not known to it. */
export function bootstrapProvider(view: BootstrapView): TreeProvider {
  return {
    walk() {
      const first = new Map<number, string>()
      return [...nodesOf(view)].sort((a, b) => compareBytes(a.path, b.path)).map(({ path: name, nid }): TreeEntry => {
        const inode = view.inode(nid)
        // SAFETY: `inode` refuses any other type.
        const type = KINDS[(inode.mode & S_IFMT) as keyof typeof KINDS]
        const sameAs = type === 'dir' ? '' : first.get(nid) ?? ''
        if (sameAs === '') first.set(nid, name)
        return {
          path: name, type, mode: inode.mode & 0o7777, uid: inode.uid, gid: inode.gid, mtime: [inode.mtime, inode.mtimeNsec], size: inode.size, nlink: inode.nlink,
          ...((type === 'chr' || type === 'blk') && { rdev: decodeDevice(inode.rdev) }), ...(type === 'lnk' && { target: byteString(view.readlink(inode)) }),
          xattrs: Object.fromEntries(view.xattrs(inode).map(([key, value]) => [key, Buffer.from(value).toString('hex')])), sameAs,
        }
      })
    },
  }
}

function* nodesOf(view: BootstrapView): Iterable<{ path: string; nid: number }> {
  const todo = [{ path: '/', nid: view.rootNid }]
  for (let node = todo.pop(); node !== undefined; node = todo.pop()) {
    yield node
    const inode = view.inode(node.nid)
    if ((inode.mode & S_IFMT) !== S_IFDIR) continue
    for (const { name, nid } of view.entries(inode)) {
      if (name !== '.' && name !== '..') todo.push({ path: `${node.path === '/' ? '' : node.path}/${name}`, nid })
    }
  }
}

export interface CompareOptions {
  /** Fields that need not agree. */
  readonly ignore?: readonly (keyof TreeEntry)[]
  /** The sizes of directories are RAFS's own: not those of an unpacked tree. */
  readonly ignoreDirectorySize?: boolean
}

/**
 * Differences as sentences, none when the trees agree. The root's permission bits are not compared: upstream's daemon, which wrote the
 * expect files, shows 0755 whatever the image says (docs/compatibility.md).
 */
export async function differences(expected: readonly TreeEntry[], provider: TreeProvider, { ignore = [], ignoreDirectorySize = false }: CompareOptions = {}): Promise<string[]> {
  const rest = new Map(expected.map((entry) => [entry.path, entry]))
  const found: string[] = []
  for await (const actual of provider.walk()) {
    const want = rest.get(actual.path)
    rest.delete(actual.path)
    if (want === undefined) found.push(`${toText(actual.path)}: unexpected ${actual.type}`)
    else found.push(...fieldDifferences(want, actual, [...ignore, ...(ignoreDirectorySize && want.type === 'dir' ? ['size' as const] : [])]))
  }
  return [...found, ...[...rest.keys()].map((missing) => `${toText(missing)}: missing`)]
}

const FIELDS = ['type', 'mode', 'uid', 'gid', 'mtime', 'size', 'nlink', 'rdev', 'target', 'xattrs', 'sha256', 'sameAs'] as const satisfies readonly (keyof TreeEntry)[]

function fieldDifferences(want: TreeEntry, actual: TreeEntry, ignore: readonly string[]): string[] {
  const found: string[] = []
  for (const field of FIELDS) {
    if (ignore.includes(field) || actual[field] === undefined || want[field] === undefined) continue
    const [a, b] = [want, actual].map((entry) => printable(entry, field))
    if (a !== b) found.push(`${toText(want.path)}: ${field} is ${b}, want ${a}`)
  }
  return found
}

function printable(entry: TreeEntry, field: (typeof FIELDS)[number]): string {
  const value = entry[field]
  if (field === 'mode') return (entry.path === '/' ? entry.mode & 0o7000 : entry.mode).toString(8)
  if (field === 'xattrs') return JSON.stringify(Object.entries(entry.xattrs ?? {}).sort(([a], [b]) => compareBytes(a, b)))
  return typeof value === 'string' ? toText(value) : JSON.stringify(value)
}

// Expected against shown, path by path. SPEC: spec-surface.md C.5: path, size (not of directories), mode, device numbers, link target, owners,
// extended attributes, content of every regular file. Beyond upstream: times, and the root directory where a layer describes it.

import { compareBytes, toText } from '../../core/byte-string.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../../format/erofs/inode.ts'
import type { ExpectedNode } from './expected-tree.ts'
import { type FileTree, isRegular, type ShownFile } from './file-tree.ts'
import { Limiter } from '../limiter.ts'

/** One way in which the image is not its source. `path` is readable text. */
export interface Difference { readonly path: string; readonly what: string }

export interface CompareOptions {
  readonly signal: AbortSignal
  readonly onDifference: (difference: Difference) => void
}

/** Files and bytes that were compared. */
export interface Compared { readonly files: number; readonly bytes: number }

/** Files read at the same time: reads wait for the network or for another process. */
const PARALLEL = 16

/** Walks both trees; every difference is told once. Errors of reading are differences, too. */
export async function compareTrees(expected: ExpectedNode, shown: FileTree, { signal, onDifference }: CompareOptions): Promise<Compared> {
  const limiter = new Limiter(PARALLEL)
  let files = 0
  let bytes = 0
  const tell = (path: string, what: string) => onDifference({ path: toText(path === '' ? '/' : path), what })
  const pending: [path: string, node: ExpectedNode][] = [['', expected]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [directory, node] = next
    signal.throwIfAborted()
    if (directory === '' && node.inode !== undefined) await limiter.run(signal, () => compareOne('', node, { shown, tell, signal }))
    const names = await shown.list(directory === '' ? '/' : directory).catch((error: unknown) => {
      tell(directory, `cannot be listed: ${messageOf(error)}`)
      return []
    })
    for (const name of names) if (!node.children!.has(name)) tell(`${directory}/${name}`, 'is in the image and not in the source')
    const present = new Set(names)
    const tasks: Promise<void>[] = []
    for (const [name, child] of [...node.children!].sort(([a], [b]) => compareBytes(a, b))) {
      const path = `${directory}/${name}`
      if (!present.has(name)) {
        tell(path, 'is in the source and not in the image')
        continue
      }
      files++
      bytes += child.inode?.size ?? 0
      tasks.push(limiter.run(signal, () => compareOne(path, child, { shown, tell, signal })))
      if (child.children !== undefined) pending.push([path, child])
    }
    await Promise.all(tasks)
  }
  return { files, bytes }
}

async function compareOne(path: string, { inode, children }: ExpectedNode, { shown, tell, signal }: { shown: FileTree; tell: (path: string, what: string) => void; signal: AbortSignal }): Promise<void> {
  try {
    const file = await shown.stat(path === '' ? '/' : path)
    const wanted = inode?.owners[0]?.mode ?? S_IFDIR | (file.mode & 0o7777)
    if ((file.mode & S_IFMT) !== (wanted & S_IFMT)) {
      tell(path, `is ${typeName(file.mode)}, the source has ${typeName(wanted)}`)
      return
    }
    if (inode === undefined) return // made by us because something is in it: no layer says how
    if (!inode.owners.some((owner) => owner.mode === file.mode && owner.uid === file.uid && owner.gid === file.gid)) {
      const owner = inode.owners.at(-1)!
      tell(path, `has ${ownerText(file)}, the source ${ownerText(owner)}`)
    }
    if (children === undefined && file.size !== inode.size && isRegular(file.mode)) tell(path, `has ${file.size} bytes, the source ${inode.size}`)
    if (file.mtime !== inode.mtime && inode.owners.length === 1) tell(path, `was changed at ${file.mtime}, in the source at ${inode.mtime}`)
    if (file.link !== inode.link && !isRegular(file.mode)) tell(path, `points to "${toText(file.link)}", in the source to "${toText(inode.link)}"`)
    if (file.rdevMajor !== inode.rdevMajor || file.rdevMinor !== inode.rdevMinor) tell(path, `is device ${file.rdevMajor}:${file.rdevMinor}, in the source ${inode.rdevMajor}:${inode.rdevMinor}`)
    compareXattrs(path, file, inode.xattrs, tell)
    if (isRegular(file.mode) && file.size === inode.size && await shown.digest(path, { signal }) !== inode.sha256) tell(path, 'has other content than in the source')
  } catch (error) {
    signal.throwIfAborted()
    tell(path, `cannot be read: ${messageOf(error)}`)
  }
}

function compareXattrs(path: string, { xattrs }: ShownFile, expected: ReadonlyMap<string, Uint8Array>, tell: (path: string, what: string) => void): void {
  const there = new Map(xattrs)
  for (const [name, value] of there) {
    const wanted = expected.get(name)
    if (wanted === undefined) tell(path, `has the attribute ${toText(name)}, the source has not`)
    else if (Buffer.compare(wanted, value) !== 0) tell(path, `has another value in the attribute ${toText(name)} than the source`)
  }
  for (const name of expected.keys()) if (!there.has(name)) tell(path, `has no attribute ${toText(name)}, the source has`)
}

const TYPE_NAMES: Readonly<Record<number, string>> = {
  [S_IFIFO]: 'a fifo', [S_IFCHR]: 'a character device', [S_IFDIR]: 'a directory', [S_IFBLK]: 'a block device', [S_IFREG]: 'a file', [S_IFLNK]: 'a symbolic link', [S_IFSOCK]: 'a socket',
}

function typeName(mode: number): string {
  return TYPE_NAMES[mode & S_IFMT] ?? `type ${(mode & S_IFMT).toString(8)}`
}

function ownerText({ mode, uid, gid }: { readonly mode: number; readonly uid: number; readonly gid: number }): string {
  return `mode ${(mode & 0o7777).toString(8).padStart(4, '0')} and owner ${uid}:${gid}`
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

// A tree as the package's own reader shows it: no mount, no root.

import { createHash } from 'node:crypto'
import { byteString, bytesOf } from '../../src/core/byte-string.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../../src/format/erofs/inode.ts'
import { openImage } from '../../src/index.ts'
import type { TreeEntry } from './expect.ts'

const TYPES: ReadonlyMap<number, TreeEntry['type']> = new Map([[S_IFREG, 'reg'], [S_IFDIR, 'dir'], [S_IFLNK, 'lnk'], [S_IFCHR, 'chr'], [S_IFBLK, 'blk'], [S_IFIFO, 'fifo'], [S_IFSOCK, 'sock']])

/** All paths of a bootstrap file with contents and attributes; times and devices are compared through mounts, which show nanoseconds. */
export async function libraryTree(bootstrap: string, blobDirectory: string): Promise<TreeEntry[]> {
  await using image = await openImage(bootstrap, { blobDirectory })
  const entries: TreeEntry[] = []
  const first = new Map<number, string>()
  for (const todo = ['/']; todo.length > 0;) {
    const path = todo.pop()!
    const bytes = bytesOf(path)
    const { mode, uid, gid, size, nlink, ino } = await image.lstat(bytes)
    const type = TYPES.get(mode & S_IFMT)!
    const xattrs: Record<string, string> = {}
    for (const name of await image.listXattrs(bytes)) xattrs[name] = (await image.getXattr(bytes, name)).toString('hex')
    if (type === 'dir') todo.push(...(await image.readdir(bytes, { encoding: 'buffer' })).map((name) => `${path === '/' ? '' : path}/${byteString(name)}`))
    if (type === 'reg' && !(first.get(ino)! <= path)) first.set(ino, path)
    entries.push({
      path, type, mode: mode & 0o7777, uid, gid, size, nlink, xattrs,
      ...(type === 'lnk' && { target: byteString(await image.readlink(bytes, { encoding: 'buffer' })) }),
      ...(type === 'reg' && { sha256: createHash('sha256').update(await image.readFile(bytes)).digest('hex'), sameAs: String(ino) }),
    })
  }
  return entries.map((entry) => (entry.type === 'reg' ? { ...entry, sameAs: first.get(Number(entry.sameAs)) === entry.path ? '' : first.get(Number(entry.sameAs))! } : entry))
}

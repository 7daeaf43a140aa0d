import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../../test/support/expect.ts'
import { S_IFLNK, S_IFMT } from '../format/erofs/inode.ts'
import { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { resolvePath } from './resolve.ts'

const view = BootstrapView.open(readFileSync(path.join(VECTORS, 'v6-rich-zstd/image.boot')))
const tree = expectOfCase('v6-rich-zstd')!

describe('resolvePath', () => {
  it('finds every path of a tree, links themselves too', () => {
    for (const { path: name, type, size } of tree) {
      const inode = resolvePath(view, name, { followLinks: false })
      expect(inode.size, name).toBe(size)
      expect((inode.mode & S_IFMT) === S_IFLNK, name).toBe(type === 'lnk')
    }
  })

  it('stays inside the image, however many ".." there are', () => {
    expect(resolvePath(view, '/../../..').nid).toBe(view.rootNid)
    expect(resolvePath(view, '').nid).toBe(view.rootNid)
  })

  it('says which rule a path breaks', () => {
    const file = tree.find(({ type }) => type === 'reg')!.path
    expect(() => resolvePath(view, '/no/such')).toThrow(expect.objectContaining({ code: 'RAFS_NOT_FOUND' }))
    expect(() => resolvePath(view, `${file}/x`)).toThrow(expect.objectContaining({ code: 'RAFS_NOT_DIRECTORY' }))
    expect(() => resolvePath(view, `${file}/`)).toThrow(expect.objectContaining({ code: 'RAFS_NOT_DIRECTORY' }))
  })

  it('ends a loop of links', () => {
    const loop: BootstrapView = Object.assign(Object.create(view), {
      lookup: () => ({ nid: 1, fileType: 7 }), readlink: () => Buffer.from('loop'),
      inode: (nid: number) => ({ nid, mode: nid === 1 ? S_IFLNK : 0o040755 }),
    })
    expect(() => resolvePath(loop, '/loop')).toThrow(expect.objectContaining({ code: 'RAFS_LOOP' }))
  })
})

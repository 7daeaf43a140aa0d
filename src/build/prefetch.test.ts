import { describe, expect, it } from 'vitest'
import { subscribe } from '../core/diagnostics.ts'
import { S_IFDIR, S_IFREG } from '../format/erofs/inode.ts'
import { ImageInode, ImageNode, pathOf, walkOrder } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { matchPrefetch, parsePrefetchPatterns } from './prefetch.ts'
import { makeDirectories, setChild } from './tree.ts'

const root = new ImageNode('', new ImageInode(S_IFDIR | 0o755))
for (const [path, size] of [['a/one', 1], ['a/two', 2], ['a/b/three', 3], ['c/empty', 0], ['c/four', 4]] as const) {
  const names = path.split('/')
  const file = new ImageNode(names.at(-1)!, new ImageInode(S_IFREG | 0o644))
  file.inode.size = size
  setChild(makeDirectories(root, names.slice(0, -1)), file)
}
const order = walkOrder(root)
const matched = (patterns: readonly string[], policy: 'fs' | 'blob' | 'none' = 'fs') => {
  const { table, first } = matchPrefetch(order, { policy, patterns })
  return { table: table.map((entry) => pathOf(order, entry)), first: first.map((entry) => pathOf(order, entry)) }
}

describe('prefetch', () => {
  it('reads one path a line and leaves out relative and covered ones with a warning', () => {
    const reasons: string[] = []
    const stop = subscribe('build:source:warning', ({ path }) => reasons.push(path))
    expect(parsePrefetchPatterns('  /a/b \n/a\nrelative\n/a/c\n\n/d/\n/d\n')).toEqual(['/a/b', '/a', '/d/'])
    stop()
    expect(reasons).toEqual(['relative', '/a/c', '', '/d'])
  })

  it('takes a lone slash without a line end, and nothing at all', () => {
    expect(parsePrefetchPatterns('/')).toEqual(['/'])
    expect(parsePrefetchPatterns('')).toEqual([])
    expect(parsePrefetchPatterns(Buffer.from('/\xff\n', 'latin1'))).toEqual(['/\xff'])
  })

  it('lists exact matches and orders files by the nearest pattern above them', () => {
    expect(matched(['/c', '/a/b', '/a'])).toEqual({ table: ['/c', '/a/b', '/a'], first: ['/c/four', '/a/b/three', '/a/one', '/a/two'] })
  })

  it('matches neither what is missing nor an empty file', () => {
    expect(matched(['/nowhere', '/c/empty', '/c/four'])).toEqual({ table: ['/c/four'], first: ['/c/four'] })
  })

  it('takes the root for everything, orders only with policy blob, and does nothing with none', () => {
    expect(matched(['/'])).toEqual({ table: ['/'], first: ['/a/one', '/a/two', '/a/b/three', '/c/four'] })
    expect(matched(['/c'], 'blob')).toEqual({ table: [], first: ['/c/four'] })
    expect(matched(['/c'], 'none')).toEqual({ table: [], first: [] })
  })
})

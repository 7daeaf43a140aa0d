// What `check` finds: each kind of change to an image is one difference, and an image that was not changed has none.

import { describe, expect, it } from 'vitest'
import { encodeEntry, endBlocks, padding, type WritableEntry } from '../../format/tar/writer.ts'
import { compareTrees } from './compare.ts'
import { type ExpectedNode, ExpectedTree } from './expected-tree.ts'
import type { FileTree, ShownFile } from './file-tree.ts'

const signal = new AbortController().signal

type Entry = Partial<WritableEntry> & { path: string; data?: string }

async function* tarOf(entries: readonly Entry[]): AsyncGenerator<Uint8Array> {
  for (const { data = '', ...entry } of entries) {
    const type = entry.type ?? 'file'
    yield encodeEntry({ mode: 0o644, uid: 0, gid: 0, mtime: 1000, ...entry, type, size: type === 'file' ? data.length : 0 })
    if (data !== '') yield Buffer.concat([Buffer.from(data), padding(data.length)])
  }
  yield endBlocks()
}

async function treeOf(...layers: readonly (readonly Entry[])[]): Promise<ExpectedNode> {
  const tree = new ExpectedTree()
  for (const layer of layers) await tree.apply(tarOf(layer))
  return tree.root
}

/** Shows an expected tree, so that comparisons of two of them are comparisons of an image with its source. */
class ShownTree implements FileTree {
  readonly how = 'a test'
  readonly #root: ExpectedNode

  constructor(root: ExpectedNode) {
    this.#root = root
  }

  async list(path: string): Promise<string[]> {
    return [...this.#node(path).children!.keys()]
  }

  async stat(path: string): Promise<ShownFile> {
    const { inode, children } = this.#node(path)
    const { mode, uid, gid } = inode?.owners.at(-1) ?? { mode: 0o040755, uid: 0, gid: 0 }
    const { size = 0, mtime = 0, link = '', rdevMajor = 0, rdevMinor = 0, xattrs = new Map() } = inode ?? {}
    return { mode, uid, gid, size: children === undefined ? size : 4096, mtime, link, rdevMajor, rdevMinor, xattrs: [...xattrs] }
  }

  async digest(path: string): Promise<string> {
    return this.#node(path).inode!.sha256
  }

  #node(path: string): ExpectedNode {
    return path.split('/').filter((name) => name !== '').reduce((node, name) => node.children!.get(name)!, this.#root)
  }
}

async function differences(source: readonly (readonly Entry[])[], image: readonly (readonly Entry[])[]): Promise<string[]> {
  const found: string[] = []
  await compareTrees(await treeOf(...source), new ShownTree(await treeOf(...image)), { signal, onDifference: ({ path, what }) => found.push(`${path} ${what}`) })
  return found
}

const base: readonly Entry[] = [
  { path: 'd', type: 'directory', mode: 0o755 }, { path: 'd/f', data: 'content', xattrs: [['user.a', Buffer.from('1')]] },
  { path: 'l', type: 'symlink', link: 'd/f', mode: 0o777 }, { path: 'n', type: 'character', rdevMajor: 1, rdevMinor: 3 },
]
const changed = (path: string, change: Partial<Entry>) => base.map((entry) => (entry.path === path ? { ...entry, ...change } : entry))

describe('compareTrees', () => {
  it('finds nothing where nothing is changed', async () => {
    expect(await differences([base], [base])).toEqual([])
  })

  it.each([
    ['content', changed('d/f', { data: 'contenT' }), '/d/f has other content than in the source'],
    ['size', changed('d/f', { data: 'longer content' }), '/d/f has 14 bytes, the source 7'],
    ['mode', changed('d/f', { mode: 0o600 }), '/d/f has mode 0600 and owner 0:0, the source mode 0644 and owner 0:0'],
    ['owner', changed('d', { uid: 5 }), '/d has mode 0755 and owner 5:0, the source mode 0755 and owner 0:0'],
    ['time', changed('d/f', { mtime: 1001 }), '/d/f was changed at 1001, in the source at 1000'],
    ['link', changed('l', { link: 'd' }), '/l points to "d", in the source to "d/f"'],
    ['device', changed('n', { rdevMinor: 5 }), '/n is device 1:5, in the source 1:3'],
    ['type', changed('l', { type: 'file', link: '' }), '/l is a file, the source has a symbolic link'],
    ['attribute value', changed('d/f', { xattrs: [['user.a', Buffer.from('2')]] }), '/d/f has another value in the attribute user.a than the source'],
    ['attribute missing', changed('d/f', { xattrs: [] }), '/d/f has no attribute user.a, the source has'],
    ['attribute added', changed('d', { xattrs: [['user.b', Buffer.from('')]] }), '/d has the attribute user.b, the source has not'],
    ['missing file', base.filter(({ path }) => path !== 'l'), '/l is in the source and not in the image'],
    ['file too many', [...base, { path: 'x' }], '/x is in the image and not in the source'],
  ])('names a different %s', async (_, image, expected) => {
    expect(await differences([base], [image])).toEqual([expected])
  })
})

describe('ExpectedTree', () => {
  const names = async (...layers: readonly (readonly Entry[])[]) => {
    const found: string[] = []
    const walk = (node: ExpectedNode, path: string) => {
      for (const [name, child] of node.children ?? []) {
        found.push(`${path}${name}`)
        walk(child, `${path}${name}/`)
      }
    }
    walk(await treeOf(...layers), '')
    return found.sort()
  }

  it.each([
    ['a whiteout removes what is below', [[{ path: 'a' }, { path: 'b' }], [{ path: '.wh.a' }]], ['b']],
    ['a whiteout leaves its own layer alone, before and after it', [[{ path: 'a' }], [{ path: 'a', data: 'new' }, { path: '.wh.a' }]], ['a']],
    ['a whiteout of a directory leaves what its own layer puts in', [[{ path: 'd/old' }], [{ path: 'd/new' }, { path: '.wh.d' }]], ['d', 'd/new']],
    ['an opaque directory hides the lower one, wherever the mark stands', [[{ path: 'd/old' }], [{ path: 'd/new' }, { path: 'd/.wh..wh..opq' }]], ['d', 'd/new']],
    ['a file replaces a directory', [[{ path: 'd/x' }], [{ path: 'd' }]], ['d']],
    ['a directory replaces a file', [[{ path: 'd' }], [{ path: 'd/x' }]], ['d', 'd/x']],
    ['a link on the way is followed inside the image', [[{ path: 'lib', type: 'symlink', link: '/usr/lib' }, { path: 'usr/lib/a' }], [{ path: 'lib/b' }, { path: 'lib/.wh.a' }]], ['lib', 'usr', 'usr/lib', 'usr/lib/b']],
    ['AUFS notes are nothing', [[{ path: '.wh..wh.plnk', type: 'directory' }, { path: 'a' }]], ['a']],
  ] as const)('%s', async (_, layers, expected) => {
    expect(await names(...layers)).toEqual(expected)
  })

  it('gives an empty file the digest of nothing', async () => {
    expect((await treeOf([{ path: 'empty' }])).children!.get('empty')!.inode!.sha256).toMatch(/^e3b0c442/)
  })

  it('refuses a hard link to nothing', async () => {
    await expect(treeOf([{ path: 'a', type: 'hardlink', link: 'b' }])).rejects.toMatchObject({ code: 'IMAGE_INVALID' })
  })
})

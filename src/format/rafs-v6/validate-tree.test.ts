import { describe, expect, it } from 'vitest'
import { deepBootstrap, largeBootstrap } from '../../../test/support/large-image.ts'
import { bootstrapOf, mutated, mutations, readableCases } from '../../../test/support/vectors.ts'
import { isCoded } from '../../core/errors.ts'
import { dirent, extendedInode } from '../erofs/inode.ts'
import { BootstrapView } from './bootstrap-view.ts'
import { validateTree, type TreeProblem } from './validate-tree.ts'

const open = (name: string) => { const { bytes, blobIdFromName } = bootstrapOf(name); return BootstrapView.open(bytes, { blobIdFromName }) }
const problemsOf = (view: BootstrapView): TreeProblem[] => [...validateTree(view)].flatMap(({ problem }) => problem ?? [])

/** Sentences of the errors that refuse `bytes`, at open or in the walk; none when it is accepted. */
function verdict(bytes: Uint8Array): string[] {
  try {
    return problemsOf(BootstrapView.open(bytes)).filter(({ severity }) => severity === 'error').map(({ path, message }) => `${path}: ${message}`)
  } catch (error) {
    if (!isCoded(error)) throw error
    return [error.message]
  }
}

/** Upstream's check accepts these, and its daemon then aborts, fails to read or shows a name that no kernel takes. */
const STRICTER = ['inode-format-bad-layout', 'dirent-slash', 'ext-blob-table-size-0']

describe('validateTree', () => {
  it.each(readableCases())('finds nothing wrong with %s', (name) => {
    expect(problemsOf(open(name))).toEqual([])
  })

  it('yields every path of the tree once, directories first', () => {
    const paths = [...validateTree(open('v6-rich-zstd'))].flatMap(({ node }) => node?.path ?? [])
    expect(paths[0]).toBe('/')
    expect(new Set(paths).size).toBe(1717)
    expect(paths.every((path, i) => i === 0 || paths.indexOf(path.slice(0, path.lastIndexOf('/')) || '/') < i)).toBe(true)
  })

  const base = bootstrapOf('should-fail').bytes
  it.each(mutations().map((mutation) => [mutation.name, mutation] as const))('judges %s as upstream does, or stricter where that crashes', (name, mutation) => {
    const errors = verdict(mutated(base, mutation))
    expect(errors.length > 0, errors.join()).toBe(mutation.check.exit !== 0 || STRICTER.includes(name))
  })

  it('warns of what is read as meant but not as a builder leaves it', () => {
    const warned = mutations().filter((mutation) => {
      try {
        const problems = problemsOf(BootstrapView.open(mutated(base, mutation)))
        return problems.length > 0 && problems.every(({ severity }) => severity === 'warning')
      } catch { return false }
    })
    expect(warned.map(({ name }) => name)).toEqual(expect.arrayContaining(['sb-inos-wrong', 'dirent-type', 'dirent-unsorted', 'xattr-shared-1', 'inode-chunk-format', 'inode-size-plus-chunk', 'chunk-usize-0']))
  })

  it('refuses a directory that is reached twice, without walking it again', () => {
    const bytes = Uint8Array.from(largeBootstrap([3, 3]))
    const view = BootstrapView.open(bytes)
    const root = view.inode(view.rootNid)
    const [first, second] = ['directory-0', 'directory-1'].map((name) => view.lookup(root, name)!.nid)
    const at = bytes.subarray(root.offset).findIndex((_, i) => dirent.decode(bytes, root.offset + i).nid === BigInt(second!))
    dirent.encode({ ...dirent.decode(bytes, root.offset + at), nid: BigInt(first!) }, bytes, root.offset + at)
    expect(verdict(bytes)).toEqual([expect.stringMatching(/^\/directory-1: directory .* second time/)])
  })

  it('cuts off directories that share their blocks, however many there are', () => {
    const bytes = Uint8Array.from(largeBootstrap([5000, ...Array<number>(2000).fill(1)]))
    const view = BootstrapView.open(bytes)
    const root = view.inode(view.rootNid)
    const large = view.inode(view.lookup(root, 'directory-0')!.nid)
    for (let d = 1; d <= 2000; d++) {
      const { offset } = view.inode(view.lookup(root, `directory-${d}`)!.nid)
      const inode = extendedInode.decode(bytes, offset)
      extendedInode.encode({ ...inode, format: 1, size: large.size - large.size % 4096, union: large.union }, bytes, offset)
    }
    const start = performance.now()
    expect(verdict(bytes).join()).toContain('directories overlap')
    expect(performance.now() - start).toBeLessThan(5000) // ten million entries would take much longer
  })

  it('cuts off attributes and chunk addresses that overlap', () => {
    const bytes = Uint8Array.from(largeBootstrap([3000]))
    const view = BootstrapView.open(bytes)
    for (const { node } of validateTree(view)) {
      if (node === undefined || node.path.length < 20) continue
      const inode = extendedInode.decode(bytes, node.inode.offset)
      const room = bytes.length - node.inode.offset - extendedInode.size
      extendedInode.encode(node.inode.nid % 2 === 0 ? { ...inode, xattrCount: Math.min(0xffff, room >> 2) - 4 } : { ...inode, size: (room >> 3) * view.chunkSize }, bytes, node.inode.offset)
    }
    const errors = verdict(bytes).join()
    expect(errors).toContain('more extended attributes than fit')
    expect(errors).toContain('more chunk addresses than fit')
  })

  it('limits the depth of directories', () => {
    expect(verdict(deepBootstrap(4000))).toEqual([])
    expect(verdict(deepBootstrap(4100))).toEqual([expect.stringMatching(/nested more than 4096 deep/)])
  })

  it('checks a directory in time that grows with its entries, not with their square', () => {
    const took = (entries: number): number => {
      const bytes = largeBootstrap([entries])
      const start = process.cpuUsage()
      expect(verdict(bytes)).toEqual([])
      const { user, system } = process.cpuUsage(start)
      return user + system
    }
    took(2_500) // compiled by then
    const [small, large] = [Math.min(took(2_500), took(2_500), took(2_500)), Math.min(took(40_000), took(40_000))]
    expect(large / small).toBeLessThan(16 * 8) // 16 times the entries; their square would be 256 times
  })
})

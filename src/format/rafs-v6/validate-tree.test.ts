import { describe, expect, it } from 'vitest'
import { bootstrapOf, mutated, mutations, readableCases } from '../../../test/support/vectors.ts'
import { isCoded } from '../../core/errors.ts'
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
})

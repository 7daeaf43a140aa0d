// What a start of nydusd loads before it answers: counted, since each module, and each package above all, is time that a container waits. A feature
// that makes this fail belongs behind an `import()` at the place where it is first needed.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { KiB } from '../../src/core/units.ts'

const BUNDLE = path.resolve(import.meta.dirname, '../../dist/bundle')
const STATIC = /^(?:import|export)[^;'"]*["']([^"']+)["']/gm
const LATER = /import\("(\.\/[^"]+)"\)/g

interface Loaded { readonly files: ReadonlySet<string>; readonly packages: ReadonlySet<string>; readonly bytes: number }

/** All that importing `entries` loads. */
function closureOf(...entries: readonly string[]): Loaded {
  const files = new Set<string>()
  const packages = new Set<string>()
  const queue = [...entries]
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (files.has(name)) continue
    files.add(name)
    for (const [, target] of textOf(name).matchAll(STATIC)) {
      if (target!.startsWith('./')) queue.push(path.basename(target!))
      else if (!target!.startsWith('node:')) packages.add(target!)
    }
  }
  return { files, packages, bytes: [...files].reduce((sum, name) => sum + textOf(name).length, 0) }
}

function textOf(name: string): string {
  return readFileSync(path.join(BUNDLE, name), 'utf8')
}

describe('a start of nydusd', () => {
  // LIMIT: the files and bytes of 0.1.0, doubled. A hundred KiB of modules are some 4 ms.
  it('loads a handful of small files and no package', () => {
    const { files, packages, bytes } = closureOf('nydusd.js')
    expect([...packages]).toEqual([])
    expect(files.size).toBeGreaterThan(1) // else this test reads the imports wrongly
    expect(files.size).toBeLessThanOrEqual(10) // what two later features share is a file of its own
    expect(bytes).toBeLessThan(240 * KiB)
  })

  it('loads what opens an image beside its first worker, still without a package', () => {
    const image = [...textOf('nydusd.js').matchAll(LATER)].map(([, target]) => path.basename(target!)).find((name) => name === 'image.js')
    const { packages, bytes } = closureOf('nydusd.js', image!)
    expect([...packages]).toEqual([])
    expect(bytes).toBeLessThan(600 * KiB)
  })

  it('starts a worker from a single file', () => {
    const { files, packages, bytes } = closureOf('thread.js')
    expect([...packages]).toEqual([])
    expect(files.size).toBe(1)
    expect(bytes).toBeLessThan(240 * KiB)
  })
})

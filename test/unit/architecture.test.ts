// Imports point down only. Rank is the whole architecture: equal ranks are siblings and may not meet (docs/architecture.md).

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'

const RANK: Readonly<Record<string, number>> = {
  core: 0, format: 1, wire: 1, native: 1, registry: 2, storage: 2, rafs: 3,
  build: 4, serve: 4, image: 4, snapshotter: 4, library: 5, cli: 6,
}
const SRC = path.resolve(import.meta.dirname, '../../src')

function sources(): string[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
}

/** `src/index.ts` is the package's door: it may re-export from `library` only. */
function violationsOf(file: string, text: string): string[] {
  const from = file.includes(path.sep) ? file.split(path.sep)[0]! : 'cli'
  const found: string[] = []
  for (const [, target] of text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
    const to = path.relative(SRC, path.resolve(SRC, path.dirname(file), target!)).split(path.sep)[0]!
    if (to !== from && !(RANK[to]! < RANK[from]!)) found.push(`${file} -> ${target}`)
  }
  return found
}

describe('architecture', () => {
  it('imports point down the layer ranks', () => {
    expect(sources().flatMap((file) => violationsOf(file, readFileSync(path.join(SRC, file), 'utf8')))).toEqual([])
  })

  it('notices an import that points up or sideways', () => {
    expect(violationsOf('storage/x.ts', `import { a } from '../serve/index.ts'`)).toHaveLength(1)
    expect(violationsOf('build/x.ts', `import { a } from '../serve/index.ts'`)).toHaveLength(1)
    expect(violationsOf('serve/x.ts', `import { a } from '../storage/index.ts'`)).toHaveLength(0)
  })

  it('only core/struct.ts builds a DataView', () => {
    const found = sources().filter((file) => file !== path.join('core', 'struct.ts') && /new DataView/.test(readFileSync(path.join(SRC, file), 'utf8')))
    expect(found).toEqual([])
  })

  it('nothing below cli prints or exits', () => {
    const found = sources().filter((file) => !file.startsWith('cli') && /console\.(log|error|warn)|process\.exit\(/.test(readFileSync(path.join(SRC, file), 'utf8')))
    expect(found).toEqual([])
  })
})

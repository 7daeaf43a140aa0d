// docs/format/*.md and docs/errors.md are printed from the code; here the same printer runs over the sources, without a build.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { ERROR_TABLE } from '../../src/core/errors.ts'
import { toMarkdown } from '../../src/core/struct.ts'
import { STRUCT_PAGES } from '../../src/format/struct-tables.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8')
const { errorsPage, formatPage } = await import(path.join(ROOT, 'scripts/docs-pages.mjs'))

describe('generated documentation', () => {
  it.each(Object.entries(STRUCT_PAGES))('docs/format/%s.md says what the structures say (else: npm run docs)', (name, structs) => {
    expect(read(`docs/format/${name}.md`)).toBe(formatPage(read(`docs/format/prose/${name}.md`), structs, toMarkdown))
  })

  it('docs/errors.md lists the error codes (else: npm run docs)', () => {
    expect(read('docs/errors.md')).toBe(errorsPage(ERROR_TABLE))
  })

  it('refuses prose that leaves out a structure or names one that is not', () => {
    expect(() => formatPage('', STRUCT_PAGES.blob, toMarkdown)).toThrow(/nowhere ChunkInfoV1/)
    expect(() => formatPage('<!-- table: Nothing -->', [], toMarkdown)).toThrow(/no structure Nothing/)
  })
})

#!/usr/bin/env node
// Writes docs/format/*.md and docs/errors.md from the tables in the code (dist/, so build first). With --check: writes nothing, exit 1 when they differ.
import fs from 'node:fs'
import path from 'node:path'
import { errorsPage, formatPage } from './docs-pages.mjs'

const root = path.resolve(import.meta.dirname, '..')
const [{ ERROR_TABLE }, { toMarkdown }, { STRUCT_PAGES }] = await Promise.all(['core/errors.js', 'core/struct.js', 'format/struct-tables.js'].map((file) => import(path.join(root, 'dist', file))))

const pages = new Map([['docs/errors.md', errorsPage(ERROR_TABLE)]])
for (const [name, structs] of Object.entries(STRUCT_PAGES)) {
  pages.set(`docs/format/${name}.md`, formatPage(fs.readFileSync(path.join(root, `docs/format/prose/${name}.md`), 'utf8'), structs, toMarkdown))
}

let stale = 0
for (const [file, text] of pages) {
  const target = path.join(root, file)
  if (fs.existsSync(target) && fs.readFileSync(target, 'utf8') === text) continue
  stale++
  if (process.argv.includes('--check')) process.stderr.write(`${file} is not what the code says: run npm run docs\n`)
  else fs.writeFileSync(target, text)
}
if (process.argv.includes('--check') && stale > 0) process.exitCode = 1

#!/usr/bin/env node
// Writes docs/format/*.md and docs/errors.md from the tables in the code and docs/cli.md from the programs' --help (dist/, so build first).
// With --check: writes nothing, exit 1 when they differ.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { cliPage, errorsPage, formatPage } from './docs-pages.mjs'

const root = path.resolve(import.meta.dirname, '..')
const [{ ERROR_TABLE }, { toMarkdown }, { STRUCT_PAGES }, { REFUSALS }] = await Promise.all(['core/errors.js', 'core/struct.js', 'format/struct-tables.js', 'image/refusal.js'].map((file) => import(path.join(root, 'dist', file))))

const pages = new Map([['docs/errors.md', errorsPage(ERROR_TABLE)]])
for (const [name, structs] of Object.entries(STRUCT_PAGES)) {
  pages.set(`docs/format/${name}.md`, formatPage(fs.readFileSync(path.join(root, `docs/format/prose/${name}.md`), 'utf8'), structs, toMarkdown))
}

/** What a program prints for its help, as on a machine without colours or settings. */
function help(program, ...argv) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(root, 'bin', program), ...argv, '--help'], { encoding: 'utf8', env: { PATH: process.env.PATH, COLUMNS: '140', NO_COLOR: '1' } })
  if (status !== 0 || stdout === '') throw new Error(`${program} ${argv.join(' ')} --help: exit ${status} ${stderr}`)
  return stdout.trimEnd()
}
pages.set('docs/cli.md', cliPage(help, REFUSALS))

let stale = 0
for (const [file, text] of pages) {
  const target = path.join(root, file)
  if (fs.existsSync(target) && fs.readFileSync(target, 'utf8') === text) continue
  stale++
  if (process.argv.includes('--check')) process.stderr.write(`${file} is not what the code says: run npm run docs\n`)
  else fs.writeFileSync(target, text)
}
if (process.argv.includes('--check') && stale > 0) process.exitCode = 1

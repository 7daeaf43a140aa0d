// The gzip decoder beside zlib, which it replaced: the same verdict and the same bytes for members of all makes, whole, damaged and cut short, in
// random steps, under the sanitizers.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, it } from 'vitest'

const NATIVE = path.resolve(import.meta.dirname, '../../native')
const MEMBERS = 200
const directory = mkdtempSync(path.join(tmpdir(), 'nydus-inflate-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

it('decodes what zlib decodes, and refuses what zlib refuses', () => {
  const program = path.join(directory, 'inflate')
  const compile = (...more: string[]): boolean => spawnSync(process.env['CC'] ?? 'cc', ['-std=gnu11', '-O1', ...more, '-o', program, ...['inflate.c', 'gunzip.c', 'test/inflate.c'].map((file) => path.join(NATIVE, file)), '-l:libz.a']).status === 0
  // a compiler may come without its sanitizers
  expect(compile('-fsanitize=address,undefined', '-fno-sanitize-recover=all') || compile()).toBe(true)
  const seed = String(Date.now() % 1e9)
  const said = execFileSync(program, [seed, String(MEMBERS)], { encoding: 'utf8', env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' } })
  const [whole, corrupt, short] = said.split(' ').map(Number)
  process.stderr.write(`inflate seed ${seed}: ${whole} whole, ${corrupt} corrupt, ${short} cut short\n`)
  for (const count of [whole, corrupt, short]) expect(count).toBeGreaterThanOrEqual(20)
})

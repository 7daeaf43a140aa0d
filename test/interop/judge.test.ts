// The independent judge (shared/tools/judge.py) over our built programs. It is not part of this repository: where it is absent, one test says so.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const ROOT = resolve(import.meta.dirname, '../..')
const SHARED = resolve(ROOT, '../shared')
const JUDGE = resolve(SHARED, 'tools/judge.py')
const CASES = '^(?!.*(v5|zran|tarfs|encrypt|estargz|external|blob-cache-dir))'

async function judge(...args: string[]): Promise<void> {
  const { stdout } = await promisify(execFile)('python3', [JUDGE, ...args, '--bin', resolve(ROOT, 'bin'), '--vectors', resolve(SHARED, 'vectors')], { maxBuffer: 1 << 26 })
    .catch((error: Error & { stdout?: string }) => { throw new Error(`judge.py ${args[0]}: ${error.stdout || error.message}`) })
  const [, held, all] = /(\d+) of (\d+) hold/.exec(stdout) ?? []
  expect(Number(all), stdout).toBeGreaterThan(0)
  expect(held, stdout).toBe(all)
}

if (existsSync(JUDGE)) {
  test('every image of upstream shows what its expect file says', () => judge('vectors', '--cases', CASES), 1_200_000)
  test('malformed bootstraps never crash or hang the daemon', () => judge('mutations'), 1_200_000)
  test('what we build reads the same through every reader', () => judge('build'), 1_200_000)
} else {
  test('the judge is not on this machine (it lies outside the repository)', () => expect(existsSync(JUDGE)).toBe(false))
}

// The README's first command behind its set-up, which scripts/test.sh has done: an image of this machine, converted, mounted lazily, a program in it.

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '../..')
/** Percent of the image that may have been fetched when the program answers; by the registry's own log. */
const LAZY_LIMIT = 70

it('the quickstart runs a program in a lazily mounted image of which less than 70 % was fetched', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(ROOT, 'scripts/quickstart.mjs')], { encoding: 'utf8', timeout: 170_000 })
  expect(status, stderr).toBe(0)
  expect(stdout).toContain(`hello from node ${process.version}`)
  const percent = Number(/fetched by then .*: (\d+) % of the image/.exec(stdout)?.[1])
  expect(percent).toBeGreaterThan(0)
  expect(percent).toBeLessThan(LAZY_LIMIT)
  process.stderr.write(`quickstart: ${/fetched by then.*/.exec(stdout)?.[0]}\n`)
}, 180_000)

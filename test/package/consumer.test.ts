// The package as its users see it: types that a strict compiler accepts, imports without side effects, a process that ends by itself.

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { sampleLayout } from '../image/sample.ts'
import { ROOT, temporary } from '../image/support.ts'

/** A folder in which the built checkout is installed under its name. */
function installed(work: ReturnType<typeof temporary>): string {
  const app = work.at('app')
  fs.mkdirSync(path.join(app, 'node_modules/@types'), { recursive: true })
  fs.symlinkSync(ROOT, path.join(app, 'node_modules/nydus-ts'))
  for (const name of ['@types/node', 'undici-types']) fs.symlinkSync(path.join(ROOT, 'node_modules', name), path.join(app, 'node_modules', name))
  fs.writeFileSync(path.join(app, 'package.json'), JSON.stringify({ type: 'module' }))
  for (const name of ['consumer.ts', 'tsconfig.json']) fs.copyFileSync(path.join(import.meta.dirname, 'consumer', name), path.join(app, name))
  return app
}

describe('the package', () => {
  it('compiles with tsc --strict in a user\'s program, which runs and ends by itself', () => {
    using work = temporary('consumer')
    const app = installed(work)
    sampleLayout(work.at('source'))
    const compiled = spawnSync(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', app], { encoding: 'utf8' })
    expect(compiled.stdout + compiled.stderr).toBe('')
    const { stdout, stderr, status } = spawnSync(process.execPath, [path.join(app, 'out/consumer.js'), `oci:${work.at('source')}:sample`, work.path], { encoding: 'utf8', cwd: app, timeout: 60_000 })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual({
      action: 'converted', events: expect.arrayContaining(['layer', 'step']), names: 9, raw: 9, isLink: true, text: 'now a file', streamed: 10, link: 'usr/lib',
      attributes: ['security.capability', 'user.binary'], code: 'RAFS_NOT_FOUND', findings: 0, early: 'no longer wanted', refused: expect.stringContaining('not asked'),
    })
  })

  it('does nothing when it is imported: no output, no handler, no timer, no native code', () => {
    const program = `
      const before = ['SIGINT', 'SIGTERM', 'exit', 'uncaughtException', 'unhandledRejection', 'warning'].map((name) => process.listenerCount(name))
      const exit = process.exit
      await import(${JSON.stringify(path.join(ROOT, 'dist/index.js'))})
      const after = ['SIGINT', 'SIGTERM', 'exit', 'uncaughtException', 'unhandledRejection', 'warning'].map((name) => process.listenerCount(name))
      const loaded = process.report.getReport().sharedObjects.filter((name) => name.includes('nydus.node'))
      if (JSON.stringify(before) !== JSON.stringify(after) || exit !== process.exit || loaded.length > 0 || process.getActiveResourcesInfo().some((one) => one === 'Timeout')) throw new Error(JSON.stringify({ before, after, loaded }))`
    expect(execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })).toBe('')
  })
})

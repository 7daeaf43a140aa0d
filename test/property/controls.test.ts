// Every safeguard of test/support/controls.ts is taken out once, and its test has to notice: it fails, and not for want of code that loads.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { CONTROLS, type Control } from '../support/controls.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')

interface Verdict { readonly fullName: string; readonly status: string; readonly failureMessages: readonly string[] }

/** Runs the control's test; the tests that ran. */
async function run({ name, test, fails, project = 'unit' }: Control, report: string): Promise<Verdict[]> {
  const pattern = fails.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const child = spawn(process.execPath, [path.join(ROOT, 'node_modules/vitest/vitest.mjs'), 'run', '--project', project, test, '-t', pattern, '--reporter=json', `--outputFile=${report}`, '--bail=1', '--testTimeout=5000'],
    { cwd: ROOT, env: { ...process.env, NYDUS_CONTROL: name }, stdio: 'ignore' })
  await new Promise((resolve, reject) => { child.once('error', reject).once('close', resolve) })
  const { testResults }: { testResults: { assertionResults: Verdict[] }[] } = JSON.parse(readFileSync(report, 'utf8'))
  return testResults.flatMap(({ assertionResults }) => assertionResults).filter(({ status }) => status === 'passed' || status === 'failed')
}

describe('without its safeguard', () => {
  it.concurrent.each(CONTROLS.map((control) => [control.name, control] as const))('%s: the test that is named fails', async (_, control) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'control-'))
    try {
      const ran = await run(control, path.join(directory, 'report.json'))
      const failed = ran.filter(({ fullName, status }) => status === 'failed' && fullName.startsWith(control.fails))
      expect(failed.length, JSON.stringify(ran)).toBeGreaterThan(0)
      expect(failed.flatMap(({ failureMessages }) => failureMessages).filter((message) => /ReferenceError|SyntaxError|is not a function/.test(message))).toEqual([])
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  it('each is described in docs/testing.md', () => {
    const page = readFileSync(path.join(ROOT, 'docs/testing.md'), 'utf8')
    expect(CONTROLS.filter(({ name, safeguard, test }) => !page.includes(`| \`${name}\` | ${safeguard} | \`${test}\``)).map(({ name }) => name)).toEqual([])
  })
})

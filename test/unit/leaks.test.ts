// The check for leftovers of a system run is itself checked: it sees a file and a process, and nothing of other runs.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { leftovers } from '../support/leaks.ts'

describe('what a system run leaves behind', () => {
  it('is noticed: files, and processes that it started', async () => {
    const [own, other] = [mkdtempSync(path.join(tmpdir(), 'leaks-')), mkdtempSync(path.join(tmpdir(), 'leaks-'))]
    const child = spawn('sleep', ['60'], { env: { ...process.env, NYDUS_TEST_RUN: own }, stdio: 'ignore' })
    const ended = new Promise((resolve) => { child.once('close', resolve) })
    try {
      await new Promise((resolve) => { child.once('spawn', resolve) })
      writeFileSync(path.join(own, 'left'), '')
      expect(leftovers(own)).toEqual([`process ${child.pid}: sleep 60 `, 'file left'])
      expect(leftovers(other)).toEqual([])
      child.kill()
      await ended
      rmSync(path.join(own, 'left'))
      expect(leftovers(own)).toEqual([])
    } finally {
      child.kill()
      for (const directory of [own, other]) rmSync(directory, { recursive: true, force: true })
    }
  })
})

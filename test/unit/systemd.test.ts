// The unit that the package carries, as systemd reads it.

import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseArguments } from '../../src/cli/nydusd/options.ts'

const UNIT = path.resolve(import.meta.dirname, '../../systemd/nydusd@.service')
const text = readFileSync(UNIT, 'utf8')

describe('the systemd unit', () => {
  it('starts nydusd with arguments that it takes', () => {
    const words = /^ExecStart=\S+ (.*)$/m.exec(text)![1]!.split(' ')
    expect(parseArguments(words)).toMatchObject({ kind: 'fuse' })
  })

  it.skipIf(!existsSync('/usr/bin/systemd-analyze'))('is valid for systemd', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'nydus-unit-'))
    try {
      const program = path.join(directory, 'nydusd')
      writeFileSync(program, '#!/bin/sh\n')
      chmodSync(program, 0o755)
      writeFileSync(path.join(directory, 'nydusd@.service'), text.replace('/usr/local/bin/nydusd', program))
      const { stderr, status } = spawnSync('systemd-analyze', ['verify', '--recursive-errors=no', '--man=no', path.join(directory, 'nydusd@app.service')], { encoding: 'utf8', env: { ...process.env, SYSTEMD_LOG_LEVEL: 'warning' } })
      expect(stderr.split('\n').filter((line) => line.includes('nydusd'))).toEqual([])
      expect(status).toBe(0)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

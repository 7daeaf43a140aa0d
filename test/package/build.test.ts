// scripts/build.mjs over a checkout whose programs are being started all the time.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '../..')
const PROGRAMS = ['nydus-image', 'nydusctl', 'nydusd', 'nydusify']

let checkout: string
beforeAll(() => {
  checkout = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-build-'))
  for (const name of ['bin', 'build', 'dist', 'native', 'scripts', 'src']) fs.cpSync(path.join(ROOT, name), path.join(checkout, name), { recursive: true, preserveTimestamps: true })
  for (const name of ['package.json', 'tsconfig.json']) fs.copyFileSync(path.join(ROOT, name), path.join(checkout, name))
  fs.symlinkSync(path.join(ROOT, 'node_modules'), path.join(checkout, 'node_modules'))
})
afterAll(() => fs.rmSync(checkout, { recursive: true, force: true }))

const build = () => spawn(process.execPath, ['scripts/build.mjs'], { cwd: checkout, stdio: ['ignore', 'ignore', 'pipe'] })
const ended = (child: ReturnType<typeof build>) => new Promise<number | null>((resolve) => { child.on('close', resolve) })
/** Something that all programs load becomes another file. */
const change = (text: string) => fs.appendFileSync(path.join(checkout, 'src/core/units.ts'), text)
const leftovers = () => fs.readdirSync(path.join(checkout, 'build')).filter((name) => name.startsWith('next-'))

describe('a build', () => {
  it('never breaks the start of a program, and brings the new code in', async () => {
    change('\nexport const FRESH = 1\n')
    const building = build()
    const done = ended(building)
    let starts = 0
    while (building.exitCode === null) {
      const program = PROGRAMS[starts++ % PROGRAMS.length]!
      const child = spawn(process.execPath, [path.join(checkout, 'bin', program), '--version'], { stdio: ['ignore', 'ignore', 'pipe'] })
      let said = ''
      child.stderr.on('data', (data) => { said += data })
      expect(await ended(child), `${program}: ${said}`).toBe(0)
    }
    expect(await done).toBe(0)
    expect(starts).toBeGreaterThan(3)
    expect(fs.readFileSync(path.join(checkout, 'dist/core/units.js'), 'utf8')).toContain('FRESH')
  })

  it('that fails changes nothing, and sweeps what a killed one left', async () => {
    const before = fs.readFileSync(path.join(checkout, 'dist/core/units.js'))
    change('export const WRONG: number = "text"\n')
    const { pid } = spawnSync('true')
    fs.mkdirSync(path.join(checkout, `build/next-${pid}/dist`), { recursive: true })
    expect(await ended(build())).toBe(1)
    expect(fs.readFileSync(path.join(checkout, 'dist/core/units.js')).equals(before)).toBe(true)
    expect(spawnSync(process.execPath, [path.join(checkout, 'bin/nydus-image'), '--version']).status).toBe(0)
    expect(leftovers()).toEqual([])
  })
})

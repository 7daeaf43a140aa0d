import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isLeased, openLeased, whileUnused } from './lease.ts'

let directory: string
let file: string
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'lease-'))
  file = path.join(directory, 'b.blob.data')
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))
const remove = () => whileUnused(file, () => unlinkSync(file))

describe('a leased file', () => {
  it('is not taken away while anybody has it open', () => {
    const [one, other] = [openLeased(directory, file), openLeased(directory, file)]
    expect([isLeased(file), remove()]).toEqual([true, false])
    closeSync(one.fd)
    expect(remove()).toBe(false)
    closeSync(other.fd)
    expect([isLeased(file), remove(), existsSync(file)]).toEqual([false, true, false])
    expect([isLeased(file), remove()]).toEqual([false, false])
  })

  it('stays leased by whoever was lent the descriptor, until that process is gone', async () => {
    const { fd } = openLeased(directory, file)
    const holder = spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', fd] })
    await once(holder, 'spawn')
    closeSync(fd)
    expect(remove()).toBe(false)
    holder.kill('SIGKILL')
    await once(holder, 'exit')
    expect(remove()).toBe(true)
  })

  it('is made anew by who comes while it is taken away', () => {
    writeFileSync(file, 'old')
    let late: ReturnType<typeof openLeased> | undefined
    whileUnused(file, () => {
      unlinkSync(file)
      late = openLeased(directory, file)
    })
    expect(late?.isNew).toBe(true)
    expect(remove()).toBe(false)
    closeSync(late!.fd)
  })

  it('whose remover does not go on is given up, with an error', () => {
    writeFileSync(file, 'old')
    whileUnused(file, () => expect(() => openLeased(directory, file)).toThrow(/being removed/))
  })
})

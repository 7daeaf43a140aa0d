import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { directorySink, fileSink } from './blob-sink.ts'

let base = ''
beforeEach(() => { base = mkdtempSync(path.join(tmpdir(), 'nydus-sink-')) })
afterEach(() => rmSync(base, { recursive: true, force: true }))

describe('blob sinks', () => {
  it('gives a blob its name when it is complete, and not before', async () => {
    const sink = directorySink(base)
    await sink.write(Buffer.from('half'))
    expect(readdirSync(base).every((name) => name.endsWith('.partial'))).toBe(true)
    await sink.write(Buffer.from(' done'))
    await sink.commit('id')
    expect([readdirSync(base), readFileSync(path.join(base, 'id'), 'utf8')]).toEqual([['id'], 'half done'])
    await sink.abort()
    expect(readdirSync(base)).toEqual(['id'])
  })

  it('leaves nothing behind when it is given up, or when there was nothing', async () => {
    const sink = directorySink(base)
    await sink.write(Buffer.from('x'))
    await sink.abort()
    await directorySink(base).commit(undefined)
    expect(readdirSync(base)).toEqual([])
  })

  it('opens a FIFO even when no byte comes, so that its reader sees the end', async () => {
    const fifo = path.join(base, 'fifo')
    execFileSync('mkfifo', [fifo])
    const reader = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(reader, 'exit')
    const sink = await fileSink(fifo)
    await sink.commit(undefined)
    expect((await ended)[0]).toBe(0)
  })

  it('says which output cannot be written', async () => {
    await expect(fileSink(path.join(base, 'no/such'))).rejects.toMatchObject({ code: 'BUILD_OUTPUT', message: expect.stringContaining('no/such') })
    await expect(directorySink(path.join(base, 'missing')).write(Buffer.from('x'))).rejects.toMatchObject({ code: 'BUILD_OUTPUT' })
  })
})

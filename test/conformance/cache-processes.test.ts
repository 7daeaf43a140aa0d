// One cache directory, several processes: they fetch each chunk once, and one that is killed in the middle leaves no wrong byte.

import { spawn, type ChildProcess } from 'node:child_process'
import { on, once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'

const CASE = 'v6-rich-chunk64k'
const expected = new Map(expectOfCase(CASE)!.filter(({ type }) => type === 'reg').map(({ path: name, sha256 }) => [name, sha256]))
let cache: string
let children: ChildProcess[] = []
beforeEach(() => { cache = mkdtempSync(path.join(tmpdir(), 'cache-processes-')) })
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
  children = []
  rmSync(cache, { recursive: true, force: true })
})

interface Run { readonly requests: readonly (readonly [offset: number, length: number])[]; readonly files: number; readonly wrong: readonly string[]; readonly exit: number | null }

function start(pauseMs: number): { readonly child: ChildProcess; readonly run: Promise<Run> } {
  const script = path.resolve(import.meta.dirname, '../support/cache-reader.mjs')
  const child = spawn(process.execPath, [script, path.join(VECTORS, CASE, 'image.boot'), path.join(VECTORS, 'blobs'), cache, String(pauseMs)], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  return { child, run: finished(child) }
}

async function finished(child: ChildProcess): Promise<Run> {
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (part: string) => { text += part })
  await once(child, 'close')
  const lines = text.split('\n').slice(0, -1)
  const requests = lines.filter((line) => line.startsWith('request')).map((line) => { const [, offset, length] = line.split(' '); return [Number(offset), Number(length)] as const })
  const files = lines.filter((line) => line.startsWith('file')).map((line) => /^file (".*") ([0-9a-f]{64})$/.exec(line)!)
  const wrong = files.filter(([, name, sha256]) => expected.get(JSON.parse(name!)) !== sha256).map(([line]) => line)
  return { requests, files: files.length, wrong, exit: child.exitCode }
}

/** Resolves when the child has printed `count` lines of a kind, or has ended. */
async function printed(child: ChildProcess, kind: string, count: number): Promise<void> {
  let text = ''
  for await (const part of on(child.stdout!, 'data', { close: ['close'] })) {
    text += String(part[0])
    if (text.split(`\n${kind} `).length + Number(text.startsWith(`${kind} `)) > count) return
  }
}

/** Bytes asked for more than once. */
function overlaps(requests: Run['requests']): number {
  const sorted = [...requests].sort(([a], [b]) => a - b)
  return sorted.reduce((sum, [offset], i) => sum + Math.max(0, i === 0 ? 0 : sorted[i - 1]![0] + sorted[i - 1]![1] - offset), 0)
}

describe('processes that share a cache directory', () => {
  it('fetch each chunk once', async () => {
    const runs = await Promise.all([start(3).run, start(3).run, start(3).run])
    for (const { files, wrong, exit } of runs) expect({ files, wrong, exit }).toEqual({ files: expected.size, wrong: [], exit: 0 })
    // all three may want the chunk information at the same moment; it is the last thing in the blob
    const last = Math.max(...runs.flatMap(({ requests }) => requests.map(([offset]) => offset)))
    expect(overlaps(runs.flatMap(({ requests }) => requests.filter(([offset]) => offset < last)))).toBe(0)
  })

  it('take over from one that was killed, without a wrong byte', async () => {
    let midway = 0
    const unfinished: (readonly [offset: number, length: number])[] = []
    for (let kill = 0; kill < 8; kill++) {
      const { child, run } = start(4)
      await printed(child, kill % 2 === 0 ? 'file' : 'request', 1 + kill * 3) // whatever the machine's pace
      child.kill('SIGKILL')
      const { files, wrong, exit, requests } = await run
      unfinished.push(...requests)
      expect(wrong).toEqual([])
      if (exit === null && files > 0) midway++
    }
    expect(midway).toBeGreaterThan(0) // else the kills came too early or too late to mean anything
    const survivor = start(4)
    const killed = start(4)
    await printed(killed.child, 'file', 3)
    killed.child.kill('SIGKILL')
    const lost = await killed.run
    expect(lost.wrong).toEqual([])
    expect(await survivor.run).toMatchObject({ files: expected.size, wrong: [], exit: 0 })
    unfinished.push(...lost.requests)
    const last = await start(0).run
    expect(last).toMatchObject({ files: expected.size, wrong: [], exit: 0 })
    // what a killed one wrote but did not live to call durable is fetched again, and nothing else
    const isLost = (offset: number, length: number) => unfinished.some(([from, size]) => from <= offset && offset + length <= from + size)
    expect(last.requests.filter(([offset, length]) => !isLost(offset, length))).toEqual([])
  })
})

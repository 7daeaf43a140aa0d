// Chunk maps as upstream's nydusd leaves them, and ours next to them.

import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { VECTORS } from '../../../test/support/expect.ts'
import { ChunkMap, chunkMapHeader } from './chunk-map.ts'
import { fileIo } from './io.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'chunk-map-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))
const open = (file: string, count: number) => ChunkMap.open(file, count, { writable: true, io: fileIo })

describe('ChunkMap', () => {
  it.each([['v6', 12], ['v6-batch', 14], ['v6-toc', 12]])('reads upstream\'s map of %s, and writes the same bytes', (name, count) => {
    const file = path.join(scratch, name)
    copyFileSync(path.join(VECTORS, 'nydusd-runtime', `${name}.blob.data.chunk_map`), file)
    const theirs = open(file, count)
    expect(Array.from({ length: count }, (_, i) => theirs.has(i)).every(Boolean)).toBe(true)
    theirs.close()
    const ours = open(`${file}.ours`, count)
    expect(ours.update(Array.from({ length: count }, (_, i) => i), true)).toBe(true)
    ours.close()
    expect(readFileSync(`${file}.ours`).equals(readFileSync(file))).toBe(true)
  })

  it('keeps the bits that another process set meanwhile', () => {
    const file = path.join(scratch, 'shared')
    const [one, other] = [open(file, 8), open(file, 8)]
    one.update([0], true)
    other.update([7], true)
    one.close()
    other.close()
    const after = open(file, 8)
    expect(Array.from({ length: 8 }, (_, i) => after.has(i))).toEqual([true, false, false, false, false, false, false, true])
    after.update([0], false)
    expect(after.has(0)).toBe(false)
    after.close()
  })

  it('takes upstream\'s word that all chunks are there', () => {
    const file = path.join(scratch, 'all')
    writeFileSync(file, Buffer.concat([chunkMapHeader.encode({ magic: 0x424d4150, version: 1, magic2: 0x434d4150, allReady: 0x4d4d4150 }), Buffer.alloc(1)]))
    const map = open(file, 5)
    expect(map.has(4)).toBe(true)
    map.close()
  })

  it('spells out that word before it takes a chunk back, and sets no bit behind the last', () => {
    const file = path.join(scratch, 'all-but-one')
    writeFileSync(file, Buffer.concat([chunkMapHeader.encode({ magic: 0x424d4150, version: 1, magic2: 0x434d4150, allReady: 0x4d4d4150 }), Buffer.alloc(2)]))
    const map = open(file, 12)
    expect(map.update([3], false)).toBe(true)
    expect(Array.from({ length: 12 }, (_, i) => map.has(i)).filter(Boolean)).toHaveLength(11)
    map.close()
    expect([...readFileSync(file).subarray(chunkMapHeader.size)]).toEqual([0xef, 0xf0])
    const again = open(file, 12)
    expect([again.has(2), again.has(3), again.has(11)]).toEqual([true, false, true])
    again.close()
  })
})

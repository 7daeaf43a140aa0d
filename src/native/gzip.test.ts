import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { gunzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { MiB } from '../core/units.ts'
import { gzipPieces } from './gzip.ts'
import { native } from './load.ts'

const signal = new AbortController().signal
const text = (length: number, seed = '') => {
  const lines: string[] = []
  for (let i = 0, size = 0; size < length; i++) size += lines[lines.push(`${seed}${i} ${createHash('md5').update(`${seed}${i}`).digest('hex').slice(0, 8)} and so on\n`) - 1]!.length
  return Buffer.from(lines.join('')).subarray(0, length)
}
const CASES: readonly (readonly [string, readonly Uint8Array[]])[] = [
  ['nothing', []],
  ['an empty piece', [new Uint8Array(0)]],
  ['one byte', [Buffer.from('x')]],
  ['noise, which does not shrink', [randomBytes(3 * MiB + 17)]],
  ['exactly one part', [text(MiB)]],
  ['parts and small pieces', [text(512), text(3 * MiB + 5), Buffer.alloc(507), text(40_000, 'b'), new Uint8Array(0), Buffer.alloc(2 * MiB)]],
]

describe('gzipPieces', () => {
  it.each(CASES)('of %s is one member that everybody reads', async (_, pieces) => {
    const packed = await gzipPieces(pieces, { level: 6, signal })
    const whole = Buffer.concat(pieces)
    expect(gunzipSync(packed).equals(whole)).toBe(true)
    const { status, stdout } = spawnSync('gzip', ['-dc'], { input: packed, maxBuffer: 64 * MiB })
    expect(status).toBe(0)
    expect(stdout.equals(whole)).toBe(true)
    // one member, to its last byte: a reader for single members takes it
    const decoded = Buffer.alloc(whole.length + 1)
    expect(native().gzipDecompress(packed, decoded)).toBe(whole.length)
  })

  it('gives the same bytes every time, hardly more than one stream would have', async () => {
    const pieces = [text(5 * MiB)]
    const packed = await gzipPieces(pieces, { level: 6, signal })
    expect(Buffer.from(await gzipPieces(pieces, { level: 6, signal })).equals(packed)).toBe(true)
    const { stdout } = spawnSync('gzip', ['-6c'], { input: pieces[0], maxBuffer: 64 * MiB })
    expect(packed.length).toBeLessThan(stdout.length * 1.002)
  })

  it('refuses parts that leave their source', () => {
    for (const [offset, length] of [[-1, 1], [0, 11], [11, 0], [5, 6]] as const) {
      expect(() => native().deflatePart(new Uint8Array(10), offset, length, 6, true, new Uint8Array(100), new Uint32Array(2))).toThrow(TypeError)
    }
  })

  it('rejects when the output has no room', async () => {
    await expect(native().deflatePart(randomBytes(1000), 0, 1000, 6, false, new Uint8Array(100), new Uint32Array(2))).rejects.toMatchObject({ errno: 28 })
  })

  it('ends when it is aborted', async () => {
    await expect(gzipPieces([text(MiB)], { level: 6, signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
  })
})

import { describe, expect, it } from 'vitest'
import { hasCode } from './errors.ts'
import { asciiz, bits64, magic, seconds64, size64, struct, toMarkdown, u16, u32, u64 } from './struct.ts'

const codeOf = (run: () => unknown): unknown => { try { run() } catch (error) { return (error as { code?: string }).code ?? error } return undefined }

describe('struct', () => {
  it('refuses a row that leaves a gap', () => {
    expect(() => struct('Gap', 8, [[0, 'a', u16, ''], [4, 'b', u32, '']])).toThrow(/Gap\.b: row says 4, previous row ends at 2/)
  })
  it('refuses a table that does not fill its size', () => {
    expect(() => struct('Short', 8, [[0, 'a', u16, '']])).toThrow(/rows end at 2, declared 8/)
  })
  it('reads through a pooled buffer with a non-zero byteOffset', () => {
    const pooled = Buffer.from([9, 9, 0x34, 0x12]).subarray(2)
    expect(struct('S', 2, [[0, 'a', u16, '']]).decode(pooled)).toEqual({ a: 0x1234 })
  })
  it('reports every short buffer as FORMAT_TRUNCATED', () => {
    const s = struct('S', 8, [[0, 'a', u64, '']])
    for (let n = 0; n < 8; n++) expect(codeOf(() => s.decode(new Uint8Array(n)))).toBe('FORMAT_TRUNCATED')
    expect(hasCode(new Error('x'), 'FORMAT_TRUNCATED')).toBe(false)
  })
  it('refuses a wrong magic', () => {
    expect(codeOf(() => struct('M', 4, [[0, 'm', magic(7), '']]).decode(new Uint8Array(4)))).toBe('FORMAT_BAD_MAGIC')
  })
  it('keeps times before 1970 and after 2038', () => {
    const s = struct('T', 8, [[0, 't', seconds64, '']])
    for (const t of [0, -1, -86400, 13_569_465_600, -(2 ** 40)]) expect(s.decode(s.encode({ t }))).toEqual({ t })
    const raw = Buffer.alloc(8)
    raw.writeBigInt64LE(-5n)
    expect(s.decode(raw)).toEqual({ t: -5 })
  })
  it('refuses offsets of 2^53 and more', () => {
    expect(codeOf(() => struct('O', 8, [[0, 'o', size64, '']]).decode(new Uint8Array(8).fill(255)))).toBe('FORMAT_OUT_OF_RANGE')
  })
  it('stops a text at its first NUL', () => {
    expect(struct('A', 4, [[0, 'a', asciiz(4), '']]).decode(Buffer.from('ab\0c')).a).toBe('ab')
  })
  it('packs bit fields above bit 31', () => {
    const s = struct('B', 8, [[0, 'w', bits64([[0, 40, 'low'], [40, 24, 'high', { bias: 1 }]]), '']])
    const raw = Buffer.alloc(8)
    raw.writeBigUInt64LE((0xabcdefn << 40n) | 0x12_3456_789an)
    expect(s.decode(raw)).toEqual({ w: { low: 0x12_3456_789a, high: 0xabcdf0 } })
    expect(s.encode(s.decode(raw))).toEqual(new Uint8Array(raw))
  })
  it('prints its own docs', () => {
    expect(toMarkdown(struct('D', 2, [[0, 'a', u16, 'meaning']]))).toMatch(/\| 0x00 \| 2 \| a \| le16 \| meaning \|/)
  })
})

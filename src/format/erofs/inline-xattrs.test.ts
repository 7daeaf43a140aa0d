import { describe, expect, it } from 'vitest'
import { readHostile, survives } from '../../../test/support/hostile.ts'
import { decodeXattrs, xattrAreaSize } from './inline-xattrs.ts'

// by hand: header, "user." + "a" = 01 02 03, "security." + "" = nothing, "system.posix_acl_access" = ff
const area = Buffer.concat([Buffer.alloc(12), Buffer.from([1, 1, 3, 0, 0x61, 1, 2, 3]), Buffer.from([0, 6, 0, 0]), Buffer.from([0, 2, 1, 0, 0xff, 0, 0, 0])])

describe('decodeXattrs', () => {
  it('gives names with prefixes and binary values, in stored order', () => {
    expect(decodeXattrs(area).map(([name, value]) => [name, [...value]])).toEqual([['user.a', [1, 2, 3]], ['security.', []], ['system.posix_acl_access', [255]]])
    expect(decodeXattrs(Buffer.alloc(12))).toEqual([])
    expect(xattrAreaSize(0)).toBe(0)
    expect(xattrAreaSize(1 + (area.length - 12) / 4)).toBe(area.length)
  })

  it('refuses a value past the area, an unknown prefix and a NUL in a name', () => {
    for (const [at, byte] of [[14, 255], [13, 5], [16, 0]] as const) {
      const damaged = Buffer.from(area)
      damaged[at] = byte
      expect(() => decodeXattrs(damaged), `${at}`).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
    }
  })

  it('survives truncation, random bytes and single changed bytes', () => {
    readHostile(decodeXattrs, area)
    for (let at = 0; at < area.length; at++) {
      for (const byte of [0, 1, 7, 127, 255]) {
        const damaged = Buffer.from(area)
        damaged[at] = byte
        survives(() => decodeXattrs(damaged), `${at}`)
      }
    }
  })
})

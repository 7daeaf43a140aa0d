import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { isCoded } from '../../core/errors.ts'
import { BASIC_DATA, GPT_SECTOR, gptEntry, gptHeader, guidHex, readGptHeader, readGptPartitions, type GptEntry, type GptHeader } from './table.ts'

const DISK = 1 << 20
const guid = (hex: string): Uint8Array => Buffer.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((at) => Number.parseInt(hex.slice(at * 2, at * 2 + 2), 16)))
const id = 'ab0123456789abcdef0123456789cdefffeeddccbbaa99887766554433221100'
const entry = (over: Partial<GptEntry> = {}): GptEntry => ({
  typeGuid: guid('0fc63daf84834772887e3d69d8477de4'), guid: guid(id.slice(32)), firstLba: 40, lastLba: 41, attributes: new Uint8Array(8),
  name: Buffer.concat([Buffer.from(id.slice(0, 32), 'utf16le'), Buffer.alloc(8)]), ...over,
})

function table(entries: readonly GptEntry[], over: Partial<GptHeader> = {}): { sector: Uint8Array; array: Uint8Array } {
  const array = Buffer.concat([...entries.map((one) => gptEntry.encode(one)), Buffer.alloc(gptEntry.size)]) // the last one is unused
  const header = {
    signature: Buffer.from('EFI PART'), revision: 0x1_0000, headerSize: 92, headerCrc32: 0, myLba: 1, alternateLba: 2047, firstUsable: 34, lastUsable: 2000,
    diskGuid: new Uint8Array(16), entriesLba: 2, entryCount: entries.length + 1, entrySize: 128, entriesCrc32: crc32(array), ...over,
  }
  const bare = gptHeader.encode(header, new Uint8Array(GPT_SECTOR))
  return { sector: gptHeader.encode({ ...header, headerCrc32: crc32(bare.subarray(0, 92)) }, new Uint8Array(GPT_SECTOR)), array }
}
const read = ({ sector, array }: { sector: Uint8Array; array: Uint8Array }) => readGptPartitions(readGptHeader(sector).header, array, DISK)

describe('a GUID partition table', () => {
  it('names blobs by name and GUID, or by half of the id', () => {
    expect(read(table([entry()]))).toEqual([{ name: id, isShort: false, offset: 40 * 512, length: 1024 }])
    expect(read(table([entry({ typeGuid: guid(BASIC_DATA) })]))).toEqual([{ name: id.slice(0, 32), isShort: true, offset: 40 * 512, length: 1024 }])
    expect(readGptHeader(table([entry()]).sector)).toMatchObject({ offset: 1024, length: 256 })
    expect(guidHex(guid(BASIC_DATA))).toBe(BASIC_DATA)
  })

  it.each([
    ['another signature', table([entry()], { signature: Buffer.from('EFI PORT') }), 'FORMAT_BAD_MAGIC'],
    ['four thousand million entries', table([entry()], { entryCount: 0xffff_ffff }), 'FORMAT_OUT_OF_RANGE'],
    ['entries of odd sizes', table([entry()], { entrySize: 100 }), 'FORMAT_OUT_OF_RANGE'],
    ['a partition that ends before it begins', table([entry({ firstLba: 50, lastLba: 40 })]), 'FORMAT_OUT_OF_RANGE'],
    ['a partition behind the disk', table([entry({ lastLba: 4000 })]), 'FORMAT_OUT_OF_RANGE'],
    ['two partitions of one name', table([entry(), entry()]), 'FORMAT_INVALID'],
    ['a partition without a name', table([entry({ typeGuid: guid(BASIC_DATA), name: new Uint8Array(72) })]), 'FORMAT_INVALID'],
  ])('is refused with %s', (_, made, code) => {
    expect(() => read(made)).toThrow(expect.objectContaining({ code }))
  })

  it('notices any flipped byte of what its checksums cover, and any truncation', () => {
    const { sector, array } = table([entry()])
    for (let at = 0; at < 92; at++) {
      if (at >= 20 && at < 24) continue // reserved
      const damaged = Uint8Array.from(sector)
      damaged[at]! ^= 0x40
      expect(() => readGptHeader(damaged), `byte ${at}`).toThrow(expect.objectContaining({ code: expect.stringMatching(/^FORMAT_/) }))
    }
    const { header } = readGptHeader(sector)
    for (let at = 0; at < array.length; at++) {
      const damaged = Uint8Array.from(array)
      damaged[at]! ^= 0x01
      expect(() => readGptPartitions(header, damaged, DISK), `byte ${at}`).toThrow(expect.objectContaining({ code: 'FORMAT_DIGEST_MISMATCH' }))
    }
    for (let length = 0; length < 92; length++) {
      try {
        readGptHeader(sector.subarray(0, length))
        expect.unreachable()
      } catch (error) {
        expect(isCoded(error) && error.code).toBe('FORMAT_TRUNCATED')
      }
    }
  })
})

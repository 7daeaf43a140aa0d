import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../../../test/support/expect.ts'
import { below, randomOf, readHostile, survives } from '../../../test/support/hostile.ts'
import { decompress } from '../../native/codecs.ts'
import { COMPRESSORS } from '../rafs-v6/blob-table.ts'
import { readBlobTail, TAIL_SIZE, type BlobTail, type Region } from './blob-tail.ts'
import { blobMetaHeader } from './chunk-info.ts'
import { readTarHeader, tarHeader } from './tar-header.ts'
import { encodeToc, gnuTarHeader, TOC_NAME, tocEntry } from './toc.ts'

/** Upstream's unfinished `optimize` wrote a blob that it cannot read either. */
const UNFINISHED = '836b9fd93050e5bd47dec17f099562fb6ac738253c89cf30b729de6959cd22eb'
const ids = readdirSync(path.join(VECTORS, 'blobs')).filter((id) => id !== UNFINISHED)
const blobOf = (id: string) => readFileSync(path.join(VECTORS, 'blobs', id))
const WITH_TOC = '9bb0a2703f5f011c48089b928e903a4085f11b77c9b590ea0264d6ece9619426'
const WITHOUT_TOC = '46148b8b89783648d117322625fbea1621b8d7211f7fdf2e5df1829b8f0f8a9d'

function tailOf(blob: Uint8Array): BlobTail {
  const { tail } = readBlobTail(blob.subarray(-TAIL_SIZE), blob.length)
  return tail!
}
/** By Node's own sha256 and the native codecs: nothing of the reader under test. */
function contentOf(blob: Uint8Array, { offset, compressedSize, compressor, uncompressedSize }: Region): Uint8Array {
  const stored = blob.subarray(offset, offset + compressedSize)
  const number = COMPRESSORS.indexOf(compressor)
  return number === 0 ? stored : decompress(stored, { compressor: number as 1 | 2 | 3, size: uncompressedSize })
}
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

describe('readBlobTail', () => {
  it('finds chunk information in every blob of upstream', () => {
    for (const id of ids) {
      const blob = blobOf(id)
      const tail = tailOf(blob)
      expect(tail.metaHeader ?? tail.boot, id).toBeDefined()
      if (tail.metaHeader === undefined) continue
      const header = blobMetaHeader.decode(contentOf(blob, tail.metaHeader))
      expect([header.ciOffset, header.ciCompressedSize, header.ciUncompressedSize], id).toEqual([tail.meta!.offset, tail.meta!.compressedSize, tail.meta!.uncompressedSize])
      expect(contentOf(blob, tail.meta!).length, id).toBe(header.ciUncompressedSize)
    }
  })

  it('gives regions whose content hashes to the digests of the table of contents', () => {
    const withToc = ids.filter((id) => tailOf(blobOf(id)).toc !== undefined)
    expect(withToc.length).toBeGreaterThan(5)
    for (const id of withToc) {
      const blob = blobOf(id)
      const { boot, meta, metaHeader, digest } = tailOf(blob)
      for (const region of [boot, meta, metaHeader, digest]) {
        if (region !== undefined) expect(sha256(contentOf(blob, region)), id).toBe(Buffer.from(region.digest!).toString('hex'))
      }
    }
  })

  it('takes a bootstrap without a table of contents from behind the chunk information', () => {
    const blob = blobOf(WITHOUT_TOC)
    const expected = readFileSync(path.join(VECTORS, 'v6-inline-meta', `${WITHOUT_TOC}.boot`))
    expect(Buffer.from(contentOf(blob, tailOf(blob).boot!)).equals(expected)).toBe(true)
  })

  it('asks for the bytes that it needs', () => {
    const blob = blobOf(WITH_TOC)
    expect(readBlobTail(blob.subarray(-512), blob.length)).toEqual({ need: TAIL_SIZE })
    expect(readBlobTail(new Uint8Array(0), 100)).toEqual({ need: 100 })
  })

  it('re-encodes a table of contents and its tar header byte for byte', () => {
    const blob = blobOf(WITH_TOC)
    const { offset, entries } = tailOf(blob).toc!
    expect(Buffer.concat([encodeToc(entries), tarHeader(TOC_NAME.toc, entries.length * tocEntry.size)]).equals(blob.subarray(offset))).toBe(true)
  })

  it('refuses what is no blob', () => {
    expect(() => readBlobTail(new Uint8Array(TAIL_SIZE), TAIL_SIZE)).toThrow(expect.objectContaining({ code: 'FORMAT_BAD_MAGIC' }))
    expect(() => readBlobTail(new Uint8Array(0), 0)).toThrow(expect.objectContaining({ code: 'FORMAT_BAD_MAGIC' }))
  })

  it('refuses a region that runs past the table of contents, is too large or has two sizes', () => {
    const [entry] = tailOf(blobOf(WITH_TOC)).toc!.entries.filter(({ name }) => name === TOC_NAME.boot)
    const read = (change: object) => () => readBlobTail(Buffer.concat([Buffer.alloc(TAIL_SIZE), encodeToc([{ ...entry!, compressedOffset: 0, compressedSize: 10, ...change }]), tarHeader(TOC_NAME.toc, tocEntry.size)]), 100_000)
    expect(read({})).not.toThrow()
    for (const change of [{ compressedOffset: 99_900 }, { uncompressedSize: 2 ** 40 }, { flags: 1, uncompressedSize: 11 }, { flags: 3 }]) {
      expect(read(change), JSON.stringify(change)).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
    }
  })

  it('survives changed bytes of a tail', () => {
    const random = randomOf(7)
    for (const id of [WITH_TOC, WITHOUT_TOC, '091a39e306c4990f450f92c72e0e88fc2b3a91a547f3bc9243efad204c6fae32']) {
      const end = blobOf(id).subarray(-TAIL_SIZE)
      for (let round = 0; round < 500; round++) {
        const damaged = Buffer.from(end)
        for (let k = 0; k < 3; k++) damaged[round % 2 ? damaged.length - 1 - below(random, 1700) : below(random, damaged.length)] = below(random, 256)
        survives(() => readBlobTail(damaged, 200_000), `${id} ${round}`)
      }
    }
  })
})

describe('tarHeader', () => {
  it('reads back what it writes, also above 8 GiB', () => {
    for (const size of [0, 1, 4096, 8 ** 11 - 1, 8 ** 11, 2 ** 40]) expect(readTarHeader(tarHeader('image.blob', size), 0)).toEqual({ name: 'image.blob', size })
  })
  it('has the checksum that tar-rs writes for a region of 20480 bytes', () => {
    // oracle: the sum of all bytes with the checksum field as spaces, by hand
    const header = Buffer.from(tarHeader(TOC_NAME.boot, 20480))
    const sum = [...header.subarray(0, 148), ...header.subarray(156)].reduce((a, b) => a + b, 8 * 32)
    expect(header.toString('latin1', 148, 156)).toBe(`${sum.toString(8).padStart(7, '0')}\0`)
    expect(header.toString('latin1', 124, 148)).toBe('00000050000\0' + '00000000000\0')
  })
  it('survives truncation and random bytes', () => {
    expect(readHostile((bytes) => gnuTarHeader.decode(bytes), tarHeader('x', 1))).toEqual({ acceptedPrefixes: 0 })
  })
})

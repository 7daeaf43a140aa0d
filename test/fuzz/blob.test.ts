// Blobs with damaged chunk information, headers, tables of contents and data, their sizes and checksums mended, under an undamaged tree: every file
// reads as its own bytes or fails with a coded error.

import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import type { CreateOptions } from '../../src/build/index.ts'
import { isCoded } from '../../src/core/errors.ts'
import { dataViewOf, type Row, type Struct } from '../../src/core/struct.ts'
import { batchContext, blobMetaHeader, chunkInfoV1, chunkInfoV2 } from '../../src/format/blob/chunk-info.ts'
import { readBlobTail, TAIL_SIZE } from '../../src/format/blob/blob-tail.ts'
import { gnuTarHeader, tocEntry } from '../../src/format/blob/toc.ts'
import { blobEntry } from '../../src/format/rafs-v6/blob-table.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { decompress } from '../../src/native/codecs.ts'
import { RafsImage, resolvePath } from '../../src/rafs/index.ts'
import { readInlinedBootstrap } from '../../src/storage/index.ts'
import { build, compressorNumber, makeTar, tarSource } from '../support/built-image.ts'
import { MemoryBackend } from '../support/backends.ts'
import { changeField } from '../support/fuzz-bootstrap.ts'
import { FUZZ_TIMEOUT, fuzz, valueOrCoded } from '../support/fuzz-run.ts'
import { below, randomOf } from '../support/hostile.ts'

const OPTIONS: Readonly<Record<string, Partial<CreateOptions>>> = {
  'plain': { compressor: 'none', chunkSize: 0x1000 },
  'zstd': { chunkSize: 0x1000 },
  'lz4, sha256': { compressor: 'lz4_block', digester: 'sha256', chunkSize: 0x4000 },
  'batches': { batchSize: 0x4000, chunkSize: 0x4000 },
  'lz4 in batches': { compressor: 'lz4_block', batchSize: 0x1000, chunkSize: 0x1_0000 },
  'a table of contents': { blobToc: true, chunkSize: 0x1000 },
  'a table of contents and batches': { blobToc: true, batchSize: 0x1000, chunkSize: 0x1000 },
}

interface Sites { readonly what: string; readonly struct: Struct<readonly Row[]>; readonly at: number; readonly count: number }
interface Base { readonly name: string; readonly bootstrap: Uint8Array; readonly blob: Buffer; readonly blobId: string; readonly contents: ReadonlyMap<string, Buffer>; readonly sites: readonly Sites[] }

/** An image whose chunk information is stored uncompressed, so that its fields can be changed in place. */
async function baseOf(name: string, options: Partial<CreateOptions>): Promise<Base> {
  const random = randomOf(7)
  const sizes = [1, 100, 4095, 4096, 4097, 9000, 20_000, 70_000]
  const contents = new Map(sizes.map((size) => [`/${size}`, Buffer.from(Array.from({ length: size }, (_, i) => (i % 100 < 50 ? below(random, 256) : 0x20)))]))
  const { bootstrap, bytes, blobs } = await build(tarSource(makeTar([...contents].map(([file, data]) => ({ path: file, data })))), options)
  const { entry, isV2, ext } = tableOf(bootstrap)
  const { ciOffset, ciCompressedSize, ciUncompressedSize, chunkCount } = entry
  const ci = decompress(bytes.subarray(ciOffset, ciOffset + ciCompressedSize), { compressor: compressorNumber(ciCompressedSize === ciUncompressedSize ? 0 : entry.ciCompressor), size: ciUncompressedSize })
  const grown = ciUncompressedSize - ciCompressedSize
  const blob = Buffer.concat([bytes.subarray(0, ciOffset), ci, bytes.subarray(ciOffset + ciCompressedSize)])
  const header = blobMetaHeader.decode(bytes, ciOffset + ciCompressedSize)
  const headerAt = ciOffset + ciUncompressedSize
  dataViewOf(blob).setBigUint64(headerAt + blobMetaHeader.offsetOf.ciCompressedSize, BigInt(ciUncompressedSize), true)
  const table = dataViewOf(bootstrap)
  table.setBigUint64(ext.blobTableOffset + blobEntry.offsetOf.ciCompressedSize, BigInt(ciUncompressedSize), true)
  table.setBigUint64(ext.blobTableOffset + blobEntry.offsetOf.compressedSize, BigInt(entry.compressedSize + grown), true)
  const tocCount = options.blobToc ? Math.floor((entry.tocSize - gnuTarHeader.size) / tocEntry.size) : 0
  const sites = [
    { what: 'chunk', struct: isV2 ? chunkInfoV2 : chunkInfoV1, at: ciOffset, count: chunkCount },
    { what: 'batch', struct: batchContext, at: ciOffset + header.contextOffset, count: header.contextCount },
    { what: 'header', struct: blobMetaHeader, at: headerAt, count: 1 },
    { what: 'contents', struct: tocEntry, at: blob.length - entry.tocSize, count: tocCount },
  ]
  const base = { name, bootstrap, blob, blobId: blobs[0]!, contents, sites: sites.filter(({ count }) => count > 0) }
  mend(base, bootstrap, blob)
  return base
}

function tableOf(bootstrap: Uint8Array) {
  const view = BootstrapView.open(bootstrap)
  const { entry, isV2 } = view.blobs[0]!
  return { entry, isV2, ext: view.ext }
}

/** Makes what is compared with other places true again: the header's sizes are the blob table's, the digest of the table of contents is its own. */
function mend({ sites }: Pick<Base, 'sites'>, bootstrap: Uint8Array, blob: Buffer): void {
  const { entry, ext } = tableOf(bootstrap)
  const contents = sites.find(({ what }) => what === 'contents')
  if (contents !== undefined) bootstrap.set(createHash('sha256').update(blob.subarray(contents.at)).digest(), ext.blobTableOffset + blobEntry.offsetOf.tocDigest)
  const header = sites.find(({ what }) => what === 'header')!.at
  const view = dataViewOf(blob)
  view.setUint32(header + blobMetaHeader.offsetOf.ciEntries, entry.chunkCount, true)
  view.setBigUint64(header + blobMetaHeader.offsetOf.ciUncompressedSize, BigInt(entry.ciUncompressedSize), true)
}

/** Changes of one kind, described. */
function change(base: Base, blob: Buffer, random: () => number): string {
  const places = [...base.sites, undefined, undefined] // the data twice
  const site = places[below(random, places.length)]
  if (site === undefined) {
    const at = below(random, base.sites[0]!.at)
    blob[at]! ^= 1 << below(random, 8)
    return `bit of ${at}`
  }
  const index = below(random, site.count)
  const row = site.struct.rows[below(random, site.struct.rows.length)]!
  changeField(blob, site.at + index * site.struct.size + row[0], row[2].size, random)
  return `${site.what} ${index}: ${row[1]}`
}

it('blobs that lie give coded errors or right bytes', async () => {
  const { signal } = new AbortController()
  const bases = await Promise.all(Object.entries(OPTIONS).map(([name, options]) => baseOf(name, options)))
  const count = { right: 0, refused: 0 }
  const readAll = async (base: Base, bootstrap: Uint8Array, blob: Buffer, verify: boolean): Promise<boolean> => {
    const image = await valueOrCoded(() => RafsImage.open({ bootstrap, backend: new MemoryBackend([[base.blobId, blob]]), verify, signal }))
    if (image === undefined) return false
    try {
      const isHeaderRight = await image.blobs[0]!.layout({ signal }).then(() => true, (error: unknown) => isCoded(error) && !/^header of|BlobMetaHeader/.test(error.message))
      for (const [file, content] of base.contents) {
        const bytes = Buffer.alloc(content.length)
        const length = await valueOrCoded(() => image.readInto(resolvePath(image.view, file), 0, bytes, { signal }))
        count[length === undefined ? 'refused' : 'right']++
        if (length !== undefined && !bytes.equals(content)) throw new Error(`wrong bytes of ${file}`)
      }
      return isHeaderRight
    } finally {
      await image.close()
    }
  }
  for (const base of bases) expect([base.name, await readAll(base, base.bootstrap, base.blob, true), count.refused]).toEqual([base.name, true, 0])
  const round = (verify: boolean) => async (random: () => number, note: (what: string) => void): Promise<boolean> => {
    const base = bases[below(random, bases.length)]!
    const [bootstrap, blob] = [Uint8Array.from(base.bootstrap), Buffer.from(base.blob)]
    const changes = Array.from({ length: 1 + below(random, 3) }, () => change(base, blob, random))
    if (below(random, 5) > 0) mend(base, bootstrap, blob)
    const cut = below(random, 20) === 0 ? below(random, blob.length) : blob.length
    note(`${base.name}: ${changes.join(', ')}, ${cut} of ${blob.length} bytes`)
    return await readAll(base, bootstrap, blob.subarray(0, cut), verify)
  }
  await fuzz('blobs', { leastPassed: 0.5 }, round(true))
  expect([count.right > count.refused / 10, count.refused > count.right / 100]).toEqual([true, true])
  await expect(fuzz('blobs that nobody verifies', { leastPassed: 0 }, round(false))).rejects.toMatchObject({ cause: { message: expect.stringMatching(/^wrong bytes/) } })
}, FUZZ_TIMEOUT * 2)

it('tables of contents that lie give coded errors or the right bootstrap', async () => {
  const { signal } = new AbortController()
  const content = makeTar([{ path: 'file', data: Buffer.alloc(20_000, 'content ') }])
  const bases = await Promise.all((['none', 'zstd', 'lz4_block'] as const).map((compressor) => build(tarSource(content), { compressor, inlineMeta: true, blobToc: true, chunkSize: 0x1000 })))
  const wants = await Promise.all(bases.map(({ bytes }) => readInlinedBootstrap(new MemoryBackend([['', bytes]]).open(''), { signal })))
  await fuzz('tables of contents', { leastPassed: 0.5 }, async (random, note) => {
    const which = below(random, bases.length)
    const blob = Buffer.from(bases[which]!.bytes)
    const entries = readBlobTail(blob.subarray(-TAIL_SIZE), blob.length).tail!.toc!
    const count = entries.entries.length
    // one change mostly: a table that lies twice is found out at the first
    const changes = Array.from({ length: below(random, 4) > 0 ? 1 : 2 }, () => {
      const [index, row] = [below(random, count), tocEntry.rows[below(random, tocEntry.rows.length)]!]
      changeField(blob, entries.offset + index * tocEntry.size + row[0], row[2].size, random)
      return `${index}: ${row[1]}`
    })
    note(`${which}: ${changes.join(', ')}`)
    const bootstrap = await valueOrCoded(() => readInlinedBootstrap(new MemoryBackend([['', blob]]).open(''), { signal }))
    if (bootstrap !== undefined && !Buffer.from(bootstrap).equals(wants[which]!)) throw new Error('another bootstrap')
    return await valueOrCoded(() => readBlobTail(blob.subarray(-TAIL_SIZE), blob.length)) !== undefined
  })
}, FUZZ_TIMEOUT)

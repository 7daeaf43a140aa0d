import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../../../test/support/expect.ts'
import { bootstrapOf } from '../../../test/support/vectors.ts'
import { decompress } from '../../native/codecs.ts'
import { ChunkInfoArray } from '../blob/chunk-info-array.ts'
import { blobMetaHeader } from '../blob/chunk-info.ts'
import { BootstrapView } from './bootstrap-view.ts'
import { chunkEntry } from './chunk-table.ts'
import { crossCheck } from './cross-check.ts'

const base = bootstrapOf('v6-small-zstd').bytes
const { blobId, entry } = BootstrapView.open(base).blobs[0]!
const blob = readFileSync(path.join(VECTORS, 'blobs', blobId))
const end = entry.ciOffset + entry.ciCompressedSize
const info = decompress(blob.subarray(entry.ciOffset, end), { compressor: 3, size: entry.ciUncompressedSize })

describe('crossCheck', () => {
  const fields = ['index', 'flags', 'compressedSize', 'uncompressedSize', 'compressedOffset', 'uncompressedOffset'] as const
  it.each(fields)('refuses a chunk table whose %s is not the blob\'s', (field) => {
    const bytes = Buffer.from(base)
    const { ext } = BootstrapView.open(base)
    const at = ext.chunkTableOffset + 3 * chunkEntry.size
    const row = chunkEntry.decode(bytes, at)
    chunkEntry.encode({ ...row, [field]: field === 'flags' ? row.flags ^ 1 : field === 'index' ? 60000 : row[field] + 4096 }, bytes, at)
    const view = BootstrapView.open(bytes)
    const array = ChunkInfoArray.decode(info, view.blobs[0]!, blobMetaHeader.decode(blob, end))
    expect(() => crossCheck(BootstrapView.open(base), 0, array)).not.toThrow()
    expect(() => crossCheck(view, 0, array)).toThrow(expect.objectContaining({ code: 'FORMAT_INVALID' }))
  })
})

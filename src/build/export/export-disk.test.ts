import { createHash } from 'node:crypto'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../../test/support/backends.ts'
import { VECTORS } from '../../../test/support/expect.ts'
import { bootstrapOf, readableCases } from '../../../test/support/vectors.ts'
import { checkDisk } from '../../../test/support/verity.ts'
import { deviceSlot } from '../../format/erofs/super-block.ts'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { chunkEntry } from '../../format/rafs-v6/chunk-table.ts'
import { EROFS_DEVTABLE_OFFSET, RAFS_SUPER_EXT_OFFSET, superBlockExt } from '../../format/rafs-v6/super-block-ext.ts'
import { RafsImage } from '../../rafs/index.ts'
import { exportDisk, type ExportOptions, type ExportResult } from './export-disk.ts'

const { signal } = new AbortController()
let base: string
beforeAll(() => { base = mkdtempSync(path.join(tmpdir(), 'export-')) })
afterAll(() => rmSync(base, { recursive: true, force: true }))

interface Case { readonly blobs?: readonly { id: string; file?: string }[]; readonly disk?: { sha256: string; size: number } }
const caseOf = (name: string): Case => JSON.parse(readFileSync(path.join(VECTORS, name, 'case.json'), 'utf8'))
const backendOf = (name: string) => new MemoryBackend((caseOf(name).blobs ?? []).filter(({ file }) => file !== undefined).map(({ id, file }) => [id, readFileSync(path.join(VECTORS, file!))] as const))
const bytesOf = (name: string) => Buffer.from(bootstrapOf(name).bytes)

/** The disk of a bootstrap, its allocated bytes, and what was told about it. */
async function disk(bootstrap: Uint8Array, backend: MemoryBackend, over: Partial<ExportOptions> = {}): Promise<{ bytes: Buffer; allocated: number; result: ExportResult }> {
  const file = path.join(base, 'disk')
  const fd = openSync(file, 'w+')
  const image = await RafsImage.open({ bootstrap, backend, verify: 'where-possible', signal })
  try {
    const result = await exportDisk({ image, fd, isEmptyFile: true, verity: false, threads: 3, signal, ...over })
    return { bytes: readFileSync(file), allocated: fstatSync(fd).blocks * 512, result }
  } finally {
    await image.close()
    closeSync(fd)
  }
}

describe('exportDisk', () => {
  const exported = readableCases().filter((name) => caseOf(name).disk !== undefined)
  it('knows the disks that upstream exports', () => expect(exported.length).toBeGreaterThan(25))

  it.each(exported)('writes the very bytes of upstream: %s', async (name) => {
    const { bytes } = await disk(bytesOf(name), backendOf(name))
    expect({ size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }).toEqual(caseOf(name).disk && { size: caseOf(name).disk!.size, sha256: caseOf(name).disk!.sha256 })
  })

  it('exports batches, at which upstream may fail', async () => {
    const { bytes } = await disk(bytesOf('v6-batch-1m'), backendOf('v6-batch-1m'))
    const view = BootstrapView.open(bytesOf('v6-batch-1m'))
    expect(bytes.length).toBe((view.devices[0]!.mappedBlock + view.devices[0]!.blocks) * 4096)
  })

  it('leaves holes where the disk is zero, and writes zeros where they cannot be left', async () => {
    const sparse = await disk(bytesOf('v6-rich-zstd'), backendOf('v6-rich-zstd'))
    expect(sparse.allocated).toBeLessThan(sparse.bytes.length * 0.6)
    const whole = await disk(bytesOf('v6-rich-zstd'), backendOf('v6-rich-zstd'), { isEmptyFile: false })
    expect(whole.bytes.equals(sparse.bytes)).toBe(true)
    expect(whole.allocated).toBeGreaterThan(sparse.bytes.length * 0.95)
  })

  it.each(['empty-tree', 'v6-small-none', 'v6-rich-zstd'])('writes a hash tree that another verifier accepts: %s', async (name) => {
    const plain = await disk(bytesOf(name), backendOf(name))
    const { bytes, result } = await disk(bytesOf(name), backendOf(name), { verity: true })
    expect(bytes.subarray(0, plain.bytes.length).equals(plain.bytes)).toBe(true)
    const tree = { blockSize: result.blockSize, blocks: result.blocks, hashOffset: result.verity!.offset, root: result.verity!.root.toString('hex') }
    expect(checkDisk(bytes, tree)).toBeUndefined()
    for (const at of [0, 5000, plain.bytes.length - 1, plain.bytes.length + 40]) {
      const flipped = Buffer.from(bytes)
      flipped[at]! ^= 1
      expect(checkDisk(flipped, tree), `byte ${at}`).toBeDefined()
    }
  })

  it('copies a chunk that the image does not know only where no file uses it', async () => {
    const known = bytesOf('v6-small-none')
    const ext = superBlockExt.decode(known, RAFS_SUPER_EXT_OFFSET)
    for (let at = ext.chunkTableOffset; at < ext.chunkTableOffset + ext.chunkTableSize; at += chunkEntry.size) known.fill(0, at, at + 32)
    await expect(disk(known, backendOf('v6-small-none'))).rejects.toMatchObject({ code: 'FORMAT_INVALID', message: expect.stringContaining('nothing tells whether it is right') })
  })

  it('refuses damaged chunks', async () => {
    const backend = backendOf('v6-small-none')
    const [[id, blob]] = [...backend.blobs] as [[string, Buffer]]
    blob[100]! ^= 1
    backend.blobs.set(id, blob)
    await expect(disk(bytesOf('v6-small-none'), backend)).rejects.toMatchObject({ code: 'STORAGE_DIGEST_MISMATCH' })
  })

  it.each([[0, 'has no address'], [1, 'inside of what lies before it'], [0xffff_ffff, 'behind the last possible block']])('refuses a blob at block %i', async (block, reason) => {
    const bytes = bytesOf('v6-small-none')
    bytes.writeUInt32LE(block, EROFS_DEVTABLE_OFFSET + deviceSlot.offsetOf.mappedBlock)
    await expect(disk(bytes, backendOf('v6-small-none'))).rejects.toMatchObject({ code: 'FORMAT_INVALID', message: expect.stringContaining(reason) })
  })
})

// `create --blob-cache-dir`: instead of a blob, what nydusd's cache would hold of it: `<id>.blob.data` (chunks at their uncompressed
// offsets) and `<id>.blob.meta`. SPEC: spec-surface.md B.4, spec-rafs.md A.11.

import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import type { BlobSink, WrittenBlob } from '../../build/index.ts'
import { CodedError } from '../../core/errors.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { writeWhole } from './io.ts'

/** Takes an uncompressed blob, then `finish` spreads it. */
export class BlobCacheSink implements BlobSink {
  readonly #directory: string
  readonly #temporary: string
  #packed: FileHandle | undefined

  constructor(directory: string) {
    this.#directory = directory
    this.#temporary = path.join(directory, `.${randomUUID()}.partial`)
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      this.#packed ??= await open(this.#temporary, 'wx+')
      await this.#packed.appendFile(bytes)
    } catch (error) {
      throw new CodedError('BUILD_OUTPUT', `cannot write to ${this.#directory}: ${error instanceof Error ? error.message : String(error)}`, { directory: this.#directory }, { cause: error })
    }
  }

  async commit(): Promise<void> {}

  async abort(): Promise<void> {
    await this.#packed?.close()
    this.#packed = undefined
    await rm(this.#temporary, { force: true })
  }

  /** Writes both files of `blob`, whose chunks `view` knows. BUILD_OUTPUT. */
  async finish(view: BootstrapView, { blobId, meta }: WrittenBlob): Promise<void> {
    const packed = this.#packed
    const index = view.blobs.findIndex((blob) => blob.blobId === blobId)
    if (packed === undefined || meta === undefined || index < 0) return await this.abort()
    const spread = `${this.#temporary}.data`
    try {
      const data = await open(spread, 'wx')
      try {
        await data.truncate(view.blobs[index]!.entry.uncompressedSize)
        for (const row of view.chunkTable.rowsOf(index)) {
          const chunk = view.chunkTable.entry(row)
          const { buffer } = await packed.read(Buffer.allocUnsafe(chunk.uncompressedSize), 0, chunk.uncompressedSize, chunk.compressedOffset)
          await data.write(buffer, 0, buffer.length, chunk.uncompressedOffset)
        }
      } finally {
        await data.close()
      }
      await rename(spread, path.join(this.#directory, `${blobId}.blob.data`))
      writeWhole(path.join(this.#directory, `${blobId}.blob.meta`), meta())
    } finally {
      await rm(spread, { force: true })
      await this.abort()
    }
  }
}

// A tar archive as source: entries become the tree, their data goes straight into the chunk pipeline. One pass, nothing is unpacked.
// SPEC: nydus builder/src/tarball.rs; spec-rafs.md D "Tar input"; where upstream is wrong, as reference/upstream-wrong.md has it.

import { type Hash, createHash } from 'node:crypto'
import type { ImageNode } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { TarReader } from '../format/tar/reader.ts'
import { decompressStream } from '../native/decompress-stream.ts'
import { sniffCompression, type StreamCompression } from '../native/sniff-compression.ts'
import type { ChunkPipeline } from './chunk-pipeline.ts'
import { ChunkFeeder } from './chunk-feeder.ts'
import { TarTree } from './tar-tree.ts'

export interface TarOptions {
  /** The archive: plain, gzip or zstd, told apart by its first bytes. Read to its end. */
  readonly stream: AsyncIterable<Uint8Array>
  /** Called at the end with the sha256 of the stream as it came, and of what it holds (a layer's digest and diffID; lower hex), and their sizes. */
  readonly onDigest?: ((digests: SourceDigests) => void) | undefined
  /** Hard links whose target is not in the archive are kept for a merge to resolve, instead of being refused. */
  readonly allowForeignLinks?: boolean | undefined
}

export interface SourceDigests {
  readonly digest: string
  readonly size: number
  readonly diffId: string
  readonly uncompressedSize: number
  readonly compression: StreamCompression
}

interface ReadOptions extends TarOptions {
  readonly explicitUidGid: boolean
  readonly chunkSize: number
  /** Bytes of the stream, files. */
  readonly onProgress: (bytes: number, files: number) => void
  readonly signal: AbortSignal
}

/** Reads the archive. TAR_*, CODEC_CORRUPT, BUILD_SOURCE (a hard link without target, an attribute that cannot be kept), what the stream throws. */
export async function readTarTree(pipeline: ChunkPipeline, options: ReadOptions): Promise<ImageNode> {
  const { signal, onDigest, chunkSize } = options
  const source = new Counter(options.stream, { isHashed: onDigest !== undefined, onBytes: (bytes) => options.onProgress(bytes, 0) })
  const { compression, stream } = await sniffCompression(source)
  const plain = compression === 'none' ? undefined : new Counter(decompressStream(stream, compression, { signal, reuseBuffers: true }), { isHashed: onDigest !== undefined })
  const tree = new TarTree(options)
  const feeder = new ChunkFeeder(pipeline, chunkSize)
  const reader = new TarReader()
  const drain = async (): Promise<boolean> => {
    for (let event = reader.next(); event !== undefined; event = reader.next()) {
      switch (event.type) {
        case 'entry': {
          const inode = tree.add(event.entry)
          if (event.entry.type === 'file') options.onProgress(0, 1)
          if (inode !== undefined && event.entry.type === 'file') feeder.begin(inode)
          else feeder.skip()
          break
        }
        case 'data': await feeder.write(event.bytes, event.offset); break
        case 'end-entry': await feeder.end(); break
        case 'end': return true
      }
    }
    return false
  }
  for await (const chunk of plain ?? stream) {
    signal.throwIfAborted()
    reader.push(chunk)
    await drain()
  }
  reader.finish()
  await drain()
  await feeder.flush()
  const inside = plain ?? source
  onDigest?.({ digest: source.digest(), size: source.size, diffId: inside.digest(), uncompressedSize: inside.size, compression })
  return tree.finish()
}

/** Passes a stream on, counts it and hashes it. */
class Counter implements AsyncIterable<Uint8Array> {
  size = 0
  readonly #source: AsyncIterable<Uint8Array>
  readonly #hash: Hash | undefined
  readonly #onBytes: ((bytes: number) => void) | undefined
  #digest: string | undefined

  constructor(source: AsyncIterable<Uint8Array>, { isHashed, onBytes }: { isHashed: boolean; onBytes?: (bytes: number) => void }) {
    this.#source = source
    this.#hash = isHashed ? createHash('sha256') : undefined
    this.#onBytes = onBytes
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.#source) {
      this.size += chunk.length
      this.#hash?.update(chunk)
      this.#onBytes?.(chunk.length)
      if (chunk.length > 0) yield chunk
    }
  }

  /** sha256 of all that passed; once it is asked for, nothing more may. */
  digest(): string {
    this.#digest ??= this.#hash?.digest('hex') ?? ''
    return this.#digest
  }
}

// Where a blob's chunks are: its chunk information, from the cache directory (a snapshotter may have put it there) or from the blob itself.
// SPEC: spec-rafs.md C.3, C.8; spec-surface.md B.4.

import { createHash } from 'node:crypto'
import { open, readFile, rename, stat, unlink } from 'node:fs/promises'
import { CodedError, isCoded } from '../core/errors.ts'
import { GiB, roundUp } from '../core/units.ts'
import { readBlobTail, TAIL_SIZE, type Region } from '../format/blob/blob-tail.ts'
import { ChunkInfoArray } from '../format/blob/chunk-info-array.ts'
import { blobMetaHeader } from '../format/blob/chunk-info.ts'
import { readTocEntries, TOC_NAME, tocEntry } from '../format/blob/toc.ts'
import type { BlobRecord, BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { crossCheck } from '../format/rafs-v6/cross-check.ts'
import type { CompressorName } from '../format/rafs-v6/blob-table.ts'
import { COMPRESSOR, DIGEST_SIZE } from '../native/codecs.ts'
import { native } from '../native/load.ts'
import type { BlobReader } from './backend/backend.ts'
import type { CacheNames } from './cache/layout.ts'
import { syncInTurn } from './cache/io.ts'
import { errnoOf } from './errno.ts'
import { sharedBytes } from './shared-bytes.ts'

const COMPRESSOR_OF = { none: COMPRESSOR.none, lz4_block: COMPRESSOR.lz4, gzip: COMPRESSOR.gzip, zstd: COMPRESSOR.zstd } as const
/** COMPAT: the header of a cached file starts at a multiple of this (nydus storage/src/meta/mod.rs). */
const META_ALIGNMENT = 4096
/** LIMIT: 2^24 chunks with 24 bytes each, and as many batches with 40. */
const MAX_META_SIZE = GiB
/** LIMIT: an unfinished file of another process is left alone for this long. */
const STALE_MS = 60_000

/** The on-disk number of a compressor. */
export function compressorNumber(name: CompressorName): 0 | 1 | 2 | 3 {
  return COMPRESSOR_OF[name]
}

export interface MetaSource {
  readonly view: BootstrapView
  readonly blobIndex: number
  readonly reader: BlobReader
  /** `<directory>/<blob id>.blob.meta`, or undefined without a cache directory. */
  readonly cacheFile: string | undefined
  /** Does not believe the cached file: the blob itself is asked, and the file replaced. */
  readonly fresh?: boolean
  /** Takes the writing of the cached file, which no read needs to wait for: a sync is 10 to 50 ms of the first byte. */
  readonly inBackground: (work: Promise<void>) => void
}

/** `isCached`: the file of the cache was believed, of which only what the image knows too could be checked. */
export interface LoadedChunkInfo { readonly layout: ChunkInfoArray; readonly isCached: boolean }

/**
 * The blob's chunk information, checked against the blob table and the chunk table. A cached file that is damaged is replaced.
 * FORMAT_* when the blob and the image do not belong together, CODEC_CORRUPT, STORAGE_* from the backend.
 */
export async function loadChunkInfo(source: MetaSource, { signal }: { readonly signal: AbortSignal }): Promise<LoadedChunkInfo> {
  const cached = source.cacheFile === undefined || source.fresh === true ? undefined : await readCached(source.cacheFile, source)
  if (cached !== undefined) return { layout: cached, isCached: true }
  const { entry, ciCompressor, blobId } = source.view.blobs[source.blobIndex]!
  if (entry.ciUncompressedSize === 0) throw new CodedError('FORMAT_UNSUPPORTED', `blob ${blobId} has no chunk information`, { blobId })
  if (entry.ciUncompressedSize > MAX_META_SIZE) throw new CodedError('FORMAT_INVALID', `blob ${blobId}: ${entry.ciUncompressedSize} bytes of chunk information`, { blobId, size: entry.ciUncompressedSize })
  const stored = await source.reader.read(entry.ciOffset, entry.ciCompressedSize + blobMetaHeader.size, { signal })
  const region = { offset: 0, compressedSize: entry.ciCompressedSize, compressor: ciCompressor, uncompressedSize: entry.ciUncompressedSize, digest: undefined }
  const bytes = await decodeRegion(stored, region)
  const header = stored.subarray(entry.ciCompressedSize)
  const layout = decodeChecked(bytes, header, source)
  if (source.cacheFile !== undefined) source.inBackground(writeCached(source.cacheFile, bytes, header))
  return { layout, isCached: false }
}

/** Files of the cache that hold a blob's digests and the table of contents that vouches for them; undefined without a cache directory. */
export type DigestFiles = Pick<CacheNames, 'digests' | 'toc'> | undefined

/**
 * The blob's own array of chunk digests, 32 bytes a chunk, or undefined when it has none. Checked against the TOC, and the TOC against the image.
 * Kept in the cache, as upstream does: without them nothing of such a blob could be verified, or served, while its backend is away.
 */
export async function loadInlinedDigests(record: BlobRecord, reader: BlobReader, { files, signal }: { readonly files?: DigestFiles; readonly signal: AbortSignal }): Promise<Uint8Array | undefined> {
  if (!record.hasInlinedDigests) return undefined
  const cached = files && await readCachedDigests(record, files)
  if (cached !== undefined) return cached
  const { tail, end } = await readTail(reader, { signal })
  if (tail.digest === undefined || tail.toc === undefined) return undefined
  const toc = end.subarray(end.length - tail.toc.size)
  if (!isToc(record, toc)) throw new CodedError('FORMAT_DIGEST_MISMATCH', `table of contents of blob ${record.blobId}`, { blobId: record.blobId, entries: tail.toc.size / tocEntry.size })
  const digests = await readRegion(reader, tail.digest, { signal })
  if (digests.length < record.entry.chunkCount * DIGEST_SIZE) throw new CodedError('FORMAT_INVALID', `blob ${record.blobId} has too few chunk digests`, { blobId: record.blobId, size: digests.length })
  if (files !== undefined) await Promise.all([writeWhole(files.digests, [digests]), writeWhole(files.toc, [toc])])
  return digests
}

async function readCachedDigests(record: BlobRecord, files: NonNullable<DigestFiles>): Promise<Uint8Array | undefined> {
  try {
    const [toc, digests] = await Promise.all([readFile(files.toc), readFile(files.digests)])
    const entry = readTocEntries(toc).find(({ name }) => name === TOC_NAME.digest)
    const isRight = isToc(record, toc) && entry !== undefined && digests.length >= record.entry.chunkCount * DIGEST_SIZE && sha256(digests).compare(entry.digest) === 0
    return isRight ? digests : undefined
  } catch (error) {
    if (!isCoded(error)) errnoOf(error) // not there, or damaged: the blob itself decides
    return undefined
  }
}

/** `toc`: with its tar header. COMPAT: an image may have no digest of it. */
function isToc({ entry: { tocDigest } }: BlobRecord, toc: Uint8Array): boolean {
  return !tocDigest.some((byte) => byte !== 0) || sha256(toc).compare(tocDigest) === 0
}

/** The bootstrap inside a blob that was built with one. FORMAT_BAD_MAGIC for a blob without. */
export async function readInlinedBootstrap(reader: BlobReader, { signal }: { readonly signal: AbortSignal }): Promise<Uint8Array> {
  const { tail } = await readTail(reader, { signal })
  if (tail.boot === undefined) throw new CodedError('FORMAT_BAD_MAGIC', 'the blob has no bootstrap inside')
  return await readRegion(reader, tail.boot, { signal })
}

async function readTail(reader: BlobReader, { signal }: { readonly signal: AbortSignal }) {
  const size = await reader.size({ signal })
  for (let need = Math.min(TAIL_SIZE, size); ;) {
    const end = await reader.read(size - need, need, { signal })
    const result = readBlobTail(end, size)
    if (result.tail !== undefined) return { tail: result.tail, end }
    need = result.need
  }
}

async function readRegion(reader: BlobReader, region: Region, { signal }: { readonly signal: AbortSignal }): Promise<Uint8Array> {
  const bytes = await decodeRegion(await reader.read(region.offset, region.compressedSize, { signal }), region)
  if (region.digest !== undefined && sha256(bytes).compare(region.digest) !== 0) throw new CodedError('FORMAT_DIGEST_MISMATCH', 'a region of a blob does not hash to the digest in its table of contents')
  return bytes
}

async function decodeRegion(stored: Uint8Array, { compressedSize, compressor, uncompressedSize }: Region): Promise<Uint8Array> {
  // SPEC: spec-rafs.md C.3: what compression does not make smaller is stored as it is
  if (compressor === 'none' || compressedSize === uncompressedSize) return stored.subarray(0, uncompressedSize)
  const bytes = Buffer.allocUnsafeSlow(uncompressedSize)
  const wrong = await native().decodeSlices(stored, Uint32Array.of(0, compressedSize), Uint8Array.of(COMPRESSOR_OF[compressor]), bytes, Uint32Array.of(0, uncompressedSize), 0, null, new Uint8Array(1))
  if (wrong > 0) throw new CodedError('CODEC_CORRUPT', `${compressedSize} bytes of a blob's metadata do not decode to ${uncompressedSize}`, { compressedSize, uncompressedSize })
  return bytes
}

function decodeChecked(bytes: Uint8Array, header: Uint8Array, { view, blobIndex }: MetaSource): ChunkInfoArray {
  const record = view.blobs[blobIndex]!
  const layout = ChunkInfoArray.decode(sharedBytes(record.blobId, bytes), record, blobMetaHeader.decode(header))
  crossCheck(view, blobIndex, layout)
  return layout
}

async function readCached(file: string, source: MetaSource): Promise<ChunkInfoArray | undefined> {
  const size = source.view.blobs[source.blobIndex]!.entry.ciUncompressedSize
  try {
    const want = roundUp(size, META_ALIGNMENT) + blobMetaHeader.size
    if ((await stat(file)).size !== want) return undefined
    const bytes = await readFile(file)
    return decodeChecked(bytes.subarray(0, size), bytes.subarray(bytes.length - blobMetaHeader.size), source)
  } catch (error) {
    // damaged or of another image: the blob itself decides
    if (!isCoded(error)) errnoOf(error)
    return undefined
  }
}

function writeCached(file: string, bytes: Uint8Array, header: Uint8Array): Promise<void> {
  return writeWhole(file, [bytes, new Uint8Array(roundUp(bytes.length, META_ALIGNMENT) - bytes.length), header])
}

// Whole or not at all, under a name that is nobody's: the next start reads it. Failing is fine, the file only saves a request.
async function writeWhole(file: string, parts: readonly Uint8Array[]): Promise<void> {
  const unfinished = `${file}.tmp`
  try {
    await removeStale(unfinished)
    const handle = await open(unfinished, 'wx', 0o644)
    try {
      await handle.writev(parts)
      await syncInTurn(handle.fd)
    } finally {
      await handle.close()
    }
    await rename(unfinished, file)
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') await unlink(unfinished).catch(errnoOf)
  }
}

async function removeStale(file: string): Promise<void> {
  const status = await stat(file).catch((error: unknown) => { errnoOf(error); return undefined })
  if (status !== undefined && Date.now() - status.mtimeMs > STALE_MS) await unlink(file)
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

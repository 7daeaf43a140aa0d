// Writes an image as one flat disk that the kernel mounts as EROFS. Every chunk that a file uses is verified before it is written.

import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { S_IFDIR, S_IFMT } from '../../format/erofs/inode.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { diskLayout, type DiskLayout, type DiskPart, fromCache, type RafsImage } from '../../rafs/index.ts'
import type { ChunkPlace, ImageBlob } from '../../storage/index.ts'
import { SparseFile } from './sparse-file.ts'
import { writeVerity, type VerityTree } from './verity.ts'

export interface ExportOptions {
  /** Opened with `verify: 'where-possible'`: chunks that no file uses need not be known to the image. */
  readonly image: RafsImage
  /** A file without content, or a device. */
  readonly fd: number
  /** `fd` is a regular file, and empty: zeros become holes. */
  readonly isEmptyFile: boolean
  readonly verity: boolean
  /** Windows that are under way at once. */
  readonly threads: number
  readonly signal: AbortSignal
}

export interface ExportResult extends Pick<DiskLayout, 'blockSize' | 'blocks'> { readonly verity: VerityTree | undefined }

/** LIMIT: bytes of a blob that are under way together, decompressed; a window is at least one chunk. */
const WINDOW = 4 * MiB

/** FORMAT_* for images without a place on a disk, STORAGE_* from the blobs, BUILD_OUTPUT. */
export async function exportDisk({ image, fd, isEmptyFile, verity, threads, signal }: ExportOptions): Promise<ExportResult> {
  const { view } = image
  const layout = diskLayout(view)
  const file = new SparseFile(fd, { keepsZeros: isEmptyFile })
  file.setSize(layout.blocks * layout.blockSize)
  await file.write(view.bytes, 0)
  let end = view.bytes.length
  for (const part of layout.parts) {
    await file.clear(end, part.offset)
    await writeBlob(file, part, image.blobs[part.blobIndex]!, { view, threads, signal })
    end = part.offset + part.length
  }
  await file.clear(end, layout.blocks * layout.blockSize)
  const tree = verity ? await writeVerity(file, { blockSize: layout.blockSize, blocks: layout.blocks, threads, signal }) : undefined
  return { blockSize: layout.blockSize, blocks: layout.blocks, verity: tree }
}

async function writeBlob(file: SparseFile, part: DiskPart, blob: ImageBlob, { view, threads, signal }: { readonly view: BootstrapView; readonly threads: number; readonly signal: AbortSignal }): Promise<void> {
  const places = await blob.allPlaces({ signal, unverifiable: true })
  if (places.some(({ index }) => !blob.canVerify(index))) refuseUsed(view, blob)
  await file.clear(part.offset, part.offset + part.length)
  const windows = windowsOf(places)
  const writeNext = async () => {
    for (const window of windows) {
      signal.throwIfAborted()
      const bytes = await blob.obtain(window, { signal })
      for (const run of runsOf(window, (place) => bytes.get(place.index))) await file.write(run.bytes, part.offset + run.offset)
      for (const place of window) if (!bytes.has(place.index)) await file.write(await fromCache(blob, place), part.offset + place.offset)
    }
  }
  await Promise.all(Array.from({ length: threads }, writeNext))
}

function* windowsOf(places: readonly ChunkPlace[]): Generator<ChunkPlace[]> {
  for (let from = 0; from < places.length;) {
    let to = from + 1
    while (to < places.length && places[to]!.offset + places[to]!.size - places[from]!.offset <= WINDOW) to++
    yield places.slice(from, to)
    from = to
  }
}

/** Chunks that were decoded side by side are written with one call: between them are the zeros of the disk. */
function runsOf(window: readonly ChunkPlace[], bytesOf: (place: ChunkPlace) => Uint8Array | undefined): { offset: number; bytes: Uint8Array }[] {
  const runs: { offset: number; bytes: Uint8Array }[] = []
  for (const place of window) {
    const bytes = bytesOf(place)
    if (bytes === undefined) continue
    const last = runs.at(-1)
    const distance = last === undefined ? -1 : place.offset - last.offset
    const isNeighbour = last !== undefined && last.bytes.buffer === bytes.buffer && bytes.byteOffset - last.bytes.byteOffset === distance && place.offset + place.size - last.offset <= WINDOW
    if (isNeighbour) last.bytes = new Uint8Array(bytes.buffer, last.bytes.byteOffset, distance + bytes.length)
    else runs.push({ offset: place.offset, bytes })
  }
  return runs
}

/** What no file uses may be unverifiable (a merge lists used chunks only); what a file uses may not. FORMAT_INVALID. */
function refuseUsed(view: BootstrapView, blob: ImageBlob): void {
  const todo = [view.rootNid]
  const seen = new Set(todo)
  for (let nid = todo.pop(); nid !== undefined; nid = todo.pop()) {
    const inode = view.inode(nid)
    for (let i = 0; i < view.chunkCount(inode); i++) {
      const { blobIndex, index } = view.chunkAt(inode, i)
      if (blobIndex !== blob.record.index || blob.canVerify(index)) continue
      throw new CodedError('FORMAT_INVALID', `chunk ${index} of blob ${blob.record.blobId} is used by a file, and nothing tells whether it is right`, { blobId: blob.record.blobId, chunk: index })
    }
    if ((inode.mode & S_IFMT) !== S_IFDIR) continue
    for (const { nid: child } of view.entries(inode)) {
      if (seen.has(child)) continue
      seen.add(child)
      todo.push(child)
    }
  }
}

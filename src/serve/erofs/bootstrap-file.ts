// The bootstrap as the kernel can mount it: a plain file, on a file system that is not stacked on others.

import { createHash } from 'node:crypto'
import { open, rename, unlink } from 'node:fs/promises'
import path from 'node:path'
import { MiB } from '../../core/units.ts'
import type { RafsImage } from '../../rafs/index.ts'
import { MAX_OPTION_VALUE } from '../../native/mount.ts'
import { stackedFileSystem } from './suitability.ts'

/** A bootstrap's path for the kernel. A copy is removed when it is mounted: the kernel keeps it open. */
export interface KernelBootstrap { readonly path: string; readonly isCopy: boolean }

/** LIMIT: read ahead at once; the page cache is what counts, the buffer is thrown away. */
const READ_AHEAD = MiB

/** `source` itself, or a copy of the image's metadata in the cache directory where the kernel would refuse it. Rejects with Node's error when it cannot be written. */
export async function kernelBootstrap(image: RafsImage, source: string, cacheDirectory: string): Promise<KernelBootstrap> {
  if (image.isPlainFile && Buffer.byteLength(source) <= MAX_OPTION_VALUE && stackedFileSystem(source) === undefined) return { path: source, isCopy: false }
  const { bytes } = image.view
  const copy = path.join(cacheDirectory, `${createHash('sha256').update(bytes).digest('hex').slice(0, 32)}.${process.pid}.boot`)
  const unfinished = `${copy}.tmp`
  const handle = await open(unfinished, 'w', 0o600)
  try {
    await handle.writeFile(bytes)
  } finally {
    await handle.close()
  }
  await rename(unfinished, copy)
  return { path: copy, isCopy: true }
}

/** Removes a copy that the kernel has open, or that was not mounted. */
export async function dropCopy({ path: file, isCopy }: KernelBootstrap): Promise<void> {
  if (isCopy) await unlink(file)
}

/**
 * Brings a bootstrap into the page cache. The driver reads it block by block as directories are walked, which takes a slow disk seconds;
 * from beginning to end it takes tenths of one.
 */
export async function readAhead(file: string, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  const handle = await open(file, 'r')
  try {
    const buffer = Buffer.allocUnsafeSlow(READ_AHEAD)
    while (!signal.aborted && (await handle.read(buffer, 0, buffer.length)).bytesRead > 0);
  } finally {
    await handle.close()
  }
}

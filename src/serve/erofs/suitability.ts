// What the kernel's EROFS driver cannot mount, or must not: refused here first, with the reason, before anything is mounted.

import { statfsSync } from 'node:fs'
import { CodedError } from '../../core/errors.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import type { RafsImage } from '../../rafs/index.ts'

/** SPEC: linux/magic.h. The driver refuses files on stacked file systems (ENOTBLK). */
const STACKED = new Map([[0x794c_7630, 'overlayfs'], [0xf15f, 'ecryptfs']])
/** SPEC: linux fs/erofs/super.c: a block is at most a page. */
const PAGE_BITS = 12

/** Where the cache of an image is, and what is in it. */
export interface CacheForm { readonly directory: string | undefined; readonly isCompressed: boolean; readonly isEncrypted: boolean }

/** FORMAT_UNSUPPORTED when the kernel cannot show `image` with data from such a cache; the message says why. */
export function refuseUnsuitable(image: RafsImage, { directory, isCompressed, isEncrypted }: CacheForm): void {
  const refuse = (reason: string): never => {
    throw new CodedError('FORMAT_UNSUPPORTED', `kernel EROFS: ${reason}`, { reason })
  }
  if (directory === undefined) refuse('needs a cache directory: the kernel reads decompressed data from cache files')
  if (isCompressed) refuse('the cache holds compressed chunks (cache.compressed), the kernel needs them as they are')
  if (isEncrypted) refuse('the cache is encrypted (enable_encryption), the kernel needs the data as it is')
  const { view } = image
  refuseMetadata(view, refuse)
  for (const { index, blobId, entry, isChunkDictionary } of view.blobs) {
    if (isChunkDictionary) refuse(`blob ${blobId} is a chunk dictionary: where its chunks lie is not known`)
    if (entry.uncompressedSize % view.blockSize !== 0) refuse(`blob ${blobId} is not aligned to blocks`)
    if (view.devices[index]!.blocks !== entry.uncompressedSize / view.blockSize) refuse(`device ${index + 1} says ${view.devices[index]!.blocks} blocks, its blob has ${entry.uncompressedSize / view.blockSize}`)
  }
}

// SPEC: linux fs/erofs/super.c erofs_read_superblock, erofs_scan_devices. Bootstraps that BootstrapView opened keep most rules already.
function refuseMetadata(view: BootstrapView, refuse: (reason: string) => never): void {
  const { superBlock, devices, blobs } = view
  if (superBlock.blockBits > PAGE_BITS) refuse(`blocks of 2^${superBlock.blockBits} bytes are larger than a page`)
  if (2 ** superBlock.blockBits !== view.blockSize) refuse(`the superblock says blocks of 2^${superBlock.blockBits} bytes, the image has ${view.blockSize}`)
  if (superBlock.extSlots !== 0) refuse('the superblock has extension slots')
  if (devices.length !== blobs.length) refuse(`${devices.length} device slots for ${blobs.length} blobs`)
  const unnamed = devices.findIndex(({ tag }) => tag[0] === 0)
  if (unnamed >= 0) refuse(`device ${unnamed + 1} has no name`)
  if (superBlock.xattrBlock !== 0) refuse('shared attributes are not in RAFS images')
}

/** The name of the stacked file system that `file` is on, which the driver refuses; else undefined. */
export function stackedFileSystem(file: string): string | undefined {
  return STACKED.get(statfsSync(file).type)
}

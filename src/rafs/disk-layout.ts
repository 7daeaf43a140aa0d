// What lies where on the flat disk of an image: the bootstrap from block 0, then each blob, decompressed, at the block that its device slot names.
// SPEC: spec-rafs.md D "export --block"; nydus service/src/block_device.rs.

import { CodedError } from '../core/errors.ts'
import { roundUp } from '../core/units.ts'
import type { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'

/** Bytes of a blob on the disk; between the parts are holes. */
export interface DiskPart { readonly blobIndex: number; readonly offset: number; readonly length: number }

export interface DiskLayout {
  readonly blockSize: number
  readonly blocks: number
  /** In disk order. */
  readonly parts: readonly DiskPart[]
}

/** A bootstrap fills whole blocks of this, whatever the block size. */
const BOOTSTRAP_ALIGNMENT = 4096
/** EROFS keeps block numbers in 32 bits. */
const MAX_BLOCKS = 2 ** 32 - 1

/** The layout of `view`'s disk. FORMAT_INVALID when its blobs have no place on one, or overlap. */
export function diskLayout(view: BootstrapView): DiskLayout {
  const { blockSize } = view
  const refuse = (blobIndex: number, reason: string): never => {
    throw new CodedError('FORMAT_INVALID', `blob ${view.blobs[blobIndex]!.blobId} ${reason}`, { blobIndex })
  }
  const parts: DiskPart[] = []
  let end = roundUp(view.bytes.length, BOOTSTRAP_ALIGNMENT)
  for (const { index, entry } of view.blobs) {
    const slot = view.devices[index]
    if (slot === undefined || slot.mappedBlock === 0) return refuse(index, 'has no address on a flat disk')
    const offset = slot.mappedBlock * blockSize
    const length = Math.floor(entry.uncompressedSize / blockSize) * blockSize
    if (offset < end) refuse(index, `starts at block ${slot.mappedBlock} of the disk, inside of what lies before it`)
    if ((offset + length) / blockSize > MAX_BLOCKS) refuse(index, 'ends behind the last possible block of a disk')
    parts.push({ blobIndex: index, offset, length })
    end = offset + length
  }
  return { blockSize, blocks: end / blockSize, parts }
}

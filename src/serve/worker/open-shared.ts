// A worker's own view of an image: metadata from the mapped bootstrap, data from cache files whose chunks are ready.

import { openSharedImage, type SharedImage } from '../../rafs/index.ts'
import { emptyImage } from '../fuse/empty-image.ts'
import type { ServedImage } from '../fuse/served-image.ts'

/** `undefined`: the daemon was started without an image. */
export function openShared(shared: SharedImage | undefined): ServedImage & { close(): void } {
  if (!shared) return { ...emptyImage, close() {} }
  const image = openSharedImage(shared)
  return {
    view: image.view,
    hasXattr: image.view.hasXattr,
    explicitIds: image.view.explicitIds,
    mutable: false,
    locate: (inode, offset, length, extents) => image.locate(inode, offset, length, extents),
    close: () => image.close(),
  }
}

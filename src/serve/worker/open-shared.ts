// A worker's own view of a file system that the main thread has opened.

import { openSharedImage, type SharedImage } from '../../rafs/index.ts'
import { delegatedFileSystem } from '../fuse/delegated-file-system.ts'
import { openDevice } from '../erofs/device-file-system.ts'
import type { ServedFileSystem } from '../fuse/served-file-system.ts'
import type { SharedFileSystem } from './messages.ts'

/** A file system of this thread; `close` unmaps it, descriptors stay the main thread's. */
export type OpenFileSystem = ServedFileSystem & { close(): void }

/** What the main thread shares, as this thread's own. */
export function openShared(shared: SharedFileSystem): OpenFileSystem {
  switch (shared.kind) {
    case 'rafs': return openImage(shared.image)
    case 'device': return openDevice(shared.device)
    case 'directory': case 'delegated': return { ...delegatedFileSystem(), close() {} }
  }
}

/** An image: metadata from the mapped bootstrap, data from cache files whose chunks are ready. */
function openImage(shared: SharedImage): OpenFileSystem {
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

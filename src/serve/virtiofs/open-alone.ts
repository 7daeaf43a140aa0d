// File systems for the thread of a device, which no other thread serves: there a directory of the host is served on the spot.

import { delegatedView } from '../fuse/delegated-file-system.ts'
import { openPassthrough } from '../passthrough/open.ts'
import type { SharedFileSystem } from '../worker/messages.ts'
import { type OpenFileSystem, openShared } from '../worker/open-shared.ts'

/** What the main thread shares, as this thread's alone. */
export function openAlone(shared: SharedFileSystem): OpenFileSystem {
  if (shared.kind !== 'directory') return openShared(shared)
  const { live, journal } = openPassthrough(shared)
  const close = (): void => {
    live.close()
    journal?.close()
  }
  return { view: delegatedView, hasXattr: true, explicitIds: true, mutable: true, live, journal, locate: () => false, close }
}

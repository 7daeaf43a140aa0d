// A directory of the host that is mounted: what the main thread holds of it.

import { closeSync } from 'node:fs'
import path from 'node:path'
import { bytesOf, fromText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { errnoName } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { descriptorLimit } from '../../native/machine.ts'
import type { FileSystem, MountedFileSystem, MountRequest } from '../daemon/file-system.ts'
import { delegatedView } from '../fuse/delegated-file-system.ts'
import { delegateOf } from '../fuse/live-requests.ts'
import { PassthroughFileSystem } from './passthrough-file-system.ts'

/** LIMIT: of the descriptors that this process may have, so many are a client's open files, and as many again files that have no handles. */
const SHARE_OF_DESCRIPTORS = 1 / 4

/** Opens the directory `source` of a request. @throws CONFIG_INVALID when it is none */
export function openSharedDirectory({ mountpoint, source, config }: MountRequest): MountedFileSystem {
  const directory = path.resolve(source)
  const root = native().beneathRoot(bytesOf(fromText(directory)))
  if (root < 0) throw new CodedError('CONFIG_INVALID', `cannot share ${directory}: ${errnoName(root)}`, { directory })
  return { mountpoint, type: 'PassthroughFs', source: directory, config, fileSystem: sharedDirectory(root), shownConfig: {} }
}

function sharedDirectory(root: number): FileSystem {
  const options = { root, maxDescriptors: Math.floor(descriptorLimit() * SHARE_OF_DESCRIPTORS), isPrivileged: process.geteuid?.() === 0 }
  let live: PassthroughFileSystem | undefined
  return {
    type: 'PassthroughFs',
    view: delegatedView,
    hasXattr: true,
    image: undefined,
    share: () => ({ kind: 'directory', ...options }),
    delegate(place) {
      live = new PassthroughFileSystem(options)
      return delegateOf({ live, ...place })
    },
    readInto: () => Promise.reject(new CodedError('SERVE_BAD_REQUEST', 'a shared directory has no misses')),
    async close() {
      live?.close()
      closeSync(root)
    },
  }
}

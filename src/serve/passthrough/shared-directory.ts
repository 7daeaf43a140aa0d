// A directory of the host that is mounted: what the main thread holds of it.

import { closeSync, mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { bytesOf, fromText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { errnoName } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { descriptorLimit } from '../../native/machine.ts'
import type { FileSystem, MountedFileSystem, MountRequest } from '../daemon/file-system.ts'
import { delegatedView } from '../fuse/delegated-file-system.ts'
import type { LivePlace } from '../fuse/live-answers.ts'
import { delegateOf } from '../fuse/live-requests.ts'
import { openPassthrough, recordFiles } from './open.ts'
import type { PassthroughOptions } from './passthrough-file-system.ts'

/** LIMIT: of the descriptors that this process may have, so many are a client's open files, and as many again files that have no handles. */
const SHARE_OF_DESCRIPTORS = 1 / 4

export interface SharedDirectoryOptions {
  /** Where it is recorded what the client knows: a path, which the mount's serial and a suffix complete. Undefined: no other server will continue. */
  readonly records?: string | undefined
  /** Whether another server has served it before. */
  readonly resume?: boolean
}

/** Opens the directory `source` of a request. @throws CONFIG_INVALID when it is none */
export function openSharedDirectory({ mountpoint, source, config }: MountRequest, options: SharedDirectoryOptions = {}): MountedFileSystem {
  const directory = path.resolve(source)
  const root = native().beneathRoot(bytesOf(fromText(directory)))
  if (root < 0) throw new CodedError('CONFIG_INVALID', `cannot share ${directory}: ${errnoName(root)}`, { directory })
  if (options.records !== undefined) mkdirSync(path.dirname(options.records), { recursive: true, mode: 0o700 })
  return { mountpoint, type: 'PassthroughFs', source: directory, config, fileSystem: sharedDirectory(root, options), shownConfig: {} }
}

function sharedDirectory(root: number, { records, resume = false }: SharedDirectoryOptions): FileSystem {
  let record: string | undefined
  let opened: ReturnType<typeof openPassthrough> | undefined
  let isContinued = false
  const optionsAt = ({ nodeHigh }: LivePlace): PassthroughOptions => {
    record = records && `${records}-${nodeHigh}`
    return { root, maxDescriptors: Math.floor(descriptorLimit() * SHARE_OF_DESCRIPTORS), isPrivileged: process.geteuid?.() === 0, record, resume }
  }
  return {
    type: 'PassthroughFs',
    view: delegatedView,
    hasXattr: true,
    image: undefined,
    share: (place) => ({ kind: 'directory', ...optionsAt(place) }),
    // not before the first request: until then another server may still be at work
    delegate(place) {
      opened = openPassthrough(optionsAt(place))
      return { ...delegateOf({ ...opened, ...place }), abandon: () => { isContinued = true } }
    },
    readInto: () => Promise.reject(new CodedError('SERVE_BAD_REQUEST', 'a shared directory has no misses')),
    async close() {
      opened?.live.close()
      opened?.journal?.close()
      closeSync(root)
      if (record !== undefined && !isContinued) for (const file of Object.values(recordFiles(record))) rmSync(file, { force: true })
    },
  }
}

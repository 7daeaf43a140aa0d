// A mounted file system as the main thread has it: what it gives to workers, and what it does for them.

import type { RafsImage } from '../../rafs/index.ts'
import type { Watched } from '../access/accounts.ts'
import type { LivePlace } from '../fuse/live-answers.ts'
import type { DelegateServer } from '../fuse/live-requests.ts'
import type { MetadataView } from '../fuse/served-file-system.ts'
import type { MissSource } from '../miss-desk.ts'
import type { SharedFileSystem } from '../worker/messages.ts'

/** As the API spells them. */
export type FileSystemType = 'Rafs' | 'PassthroughFs' | 'Device'

/** An opened file system; whoever mounts it closes it after no worker touches it any more. */
export interface FileSystem extends MissSource {
  readonly type: FileSystemType
  readonly view: MetadataView
  readonly hasXattr: boolean
  /** For its metrics; undefined where there is none. */
  readonly image: RafsImage | undefined
  /** Of a file system whose requests are all served on the main thread; called once, when the first one comes: nobody else serves it any more then. */
  delegate?(place: LivePlace): DelegateServer
  /** What workers open as theirs; valid until it is closed. */
  share(place: LivePlace): SharedFileSystem
  close(): Promise<void>
}

/** An image as a file system. */
export function imageFileSystem(image: RafsImage): FileSystem {
  const { view } = image
  return {
    type: 'Rafs',
    view,
    hasXattr: view.hasXattr,
    image,
    readDeadlineMs: image.readDeadlineMs,
    share: () => ({ kind: 'rafs', image: image.share() }),
    readInto: (nid, offset, target, options) => image.readInto(view.inode(nid), offset, target, options),
    close: () => image.close(),
  }
}

/** What is to be mounted: a request of the API, or a row of a saved state. Plain data. */
export interface MountRequest {
  /** Path inside the export, `/` for its root. */
  readonly mountpoint: string
  readonly type: FileSystemType
  /** Path of the bootstrap of an image. */
  readonly source: string
  /** Configuration text as given; may hold credentials. */
  readonly config: string
  /** Lines of a list of what to fetch ahead (rafs/prefetch-list.ts), byte strings. */
  readonly prefetchFiles?: readonly string[] | undefined
}

/** A file system, what it was opened from, and what the API and a saved state tell of it. */
export interface MountedFileSystem extends Omit<MountRequest, 'prefetchFiles'> {
  readonly fileSystem: FileSystem
  /** The configuration as an object without secrets, for the API. */
  readonly shownConfig: object
  /** What is kept of its files; default nothing. */
  readonly watched?: Watched
  /** What may be done once it is served and nobody waits for anything. */
  readonly warmUp?: (options: { readonly signal: AbortSignal }) => Promise<void>
}

/** `resume`: it was mounted by a daemon whose connection is to be continued. */
export interface OpenMountOptions { readonly signal: AbortSignal; readonly resume: boolean }

/** Opens what is asked for: configurations and backends are the business of cli. @throws CONFIG_INVALID, SERVE_UNSUPPORTED, FORMAT_*, RAFS_NOT_FOUND */
export type OpenMount = (request: MountRequest, options: OpenMountOptions) => Promise<MountedFileSystem>

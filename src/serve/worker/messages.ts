// What the main thread and a worker say to each other. Plain data: it crosses a thread boundary.

import type { ErrorMessage } from '../../core/errors.ts'
import type { SharedImage } from '../../rafs/index.ts'
import type { SharedDevice } from '../erofs/device-file-system.ts'
import type { SharedClock } from '../clock.ts'
import type { Owner } from '../fuse/attributes.ts'
import type { Connection } from '../fuse/connection.ts'
import type { Miss } from '../fuse/core.ts'
import type { Step } from '../fuse/mount-tree.ts'
import type { PassthroughOptions } from '../passthrough/passthrough-file-system.ts'

/** workerData: what a worker starts with. Descriptors belong to the main thread. */
export interface WorkerStart {
  readonly thread: number
  readonly waitSet: number
  /** See leadership.ts. */
  readonly leadership: SharedArrayBuffer
  readonly counters: SharedArrayBuffer
  /** Logs of single requests (access/access-log.ts). */
  readonly accesses: SharedArrayBuffer
  /** One Int32: raised with every message about mounts. A worker that sees it changed reads its messages before it serves what it has just read. */
  readonly mountsVersion: SharedArrayBuffer
  readonly owner: Owner
  readonly clock: SharedClock
}

/** Cookie of the wake-up in a wait set; sessions have serials from 1. */
export const WAKE_UP = 0

/** A request is never read before the message that explains its session was posted: a worker that meets an unknown one reads its messages first. */
export type ToWorker =
  | { readonly kind: 'session'; readonly session: number; readonly connection: Connection }
  | ({ readonly kind: 'mount'; readonly session: number } & WorkerMount)
  /** Answered with `unmounted`. */
  | { readonly kind: 'unmount'; readonly session: number; readonly serial: number }
  | { readonly kind: 'drop-session'; readonly session: number; readonly fd: number }
  | { readonly kind: 'stop' }

/** A file system, where it is mounted, and where its operations are counted. It takes the place of what is mounted there. */
export interface WorkerMount {
  readonly serial: number
  readonly steps: readonly Step[]
  readonly counters: SharedArrayBuffer
  readonly fileSystem: SharedFileSystem
}

/** What a worker opens as a file system of its own: one row for each kind of them. */
export type SharedFileSystem =
  | { readonly kind: 'rafs'; readonly image: SharedImage }
  | { readonly kind: 'device'; readonly device: SharedDevice }
  /** A directory of the host, by its O_PATH descriptor: the main thread serves it, or the only thread that there is. */
  | ({ readonly kind: 'directory' } & PassthroughOptions)
  /** Served by the main thread. */
  | { readonly kind: 'delegated' }

export type FromWorker =
  | { readonly kind: 'ready' }
  /** There is more to do than the workers do. Once, until another one is ready. */
  | { readonly kind: 'wanted' }
  /** `at`: ms since the epoch by the shared clock when the request was read, ms. */
  | { readonly kind: 'miss'; readonly session: number; readonly miss: Miss; readonly at: number }
  /** A whole request for a mount that the main thread serves, or (serial 0) for all of these. */
  | { readonly kind: 'request'; readonly session: number; readonly serial: number; readonly bytes: Uint8Array; readonly at: number }
  /** The kernel no longer wants the request with that id. */
  | { readonly kind: 'interrupt'; readonly session: number; readonly uniqueLow: number; readonly uniqueHigh: number }
  /** The session ended by itself (unmounted, aborted): errno as the device said it. */
  | { readonly kind: 'ended'; readonly session: number; readonly errno: number }
  /** Answer to unmount: this worker no longer touches descriptors or mappings of the file system. */
  | { readonly kind: 'unmounted'; readonly session: number; readonly serial: number }
  /** Answer to drop-session: this worker no longer touches the descriptor. */
  | { readonly kind: 'dropped'; readonly session: number }
  | { readonly kind: 'request-error'; readonly opcode: number; readonly errno: number; readonly message: string }
  | { readonly kind: 'failed'; readonly error: ErrorMessage }

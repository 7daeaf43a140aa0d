// What the main thread and a thread of vhost-user-fs devices say to each other. Plain data: it crosses a thread boundary.

import type { ErrorMessage } from '../../core/errors.ts'
import type { Owner } from '../fuse/attributes.ts'
import type { ConnectionPolicy } from '../fuse/connection.ts'
import type { Miss } from '../fuse/core.ts'
import type { WorkerMount } from '../worker/messages.ts'
import type { HeldDevice } from './device-state.ts'
import type { TrailEnds } from './trail.ts'

/** workerData. The descriptor belongs to the main thread. */
export interface ThreadStart { readonly wakeUp: number }

/** What a device begins with. Descriptors belong to the main thread, except those of `restored` but its listener. `thread`: which block of the counters is its own. */
export interface DeviceStart {
  /** Where front ends connect; or, when a holder keeps their connections, `channel`. The other is -1. */
  readonly listener: number
  readonly channel: number
  /** What a device before this one has left. */
  readonly restored: HeldDevice | undefined
  /** Where it leaves what the next one needs. */
  readonly trail: TrailEnds | undefined
  readonly mounts: readonly WorkerMount[]
  readonly counters: SharedArrayBuffer
  readonly thread: number
  readonly owner: Owner
  readonly policy: ConnectionPolicy
}

/** Devices are numbered from 1. */
export type ToThread =
  | { readonly kind: 'open'; readonly device: number; readonly start: DeviceStart }
  | { readonly kind: 'device'; readonly device: number; readonly message: ToDevice }
  /** Answered with `closed`. `handOn`: the front end stays connected, for who has its descriptor. */
  | { readonly kind: 'close'; readonly device: number; readonly handOn: boolean }
  | { readonly kind: 'stop' }

export type ToDevice =
  | ({ readonly kind: 'mount' } & WorkerMount)
  /** Answered with `unmounted`. */
  | { readonly kind: 'unmount'; readonly serial: number }
  /** The whole reply to a miss, header included. */
  | { readonly kind: 'answer'; readonly token: number; readonly bytes: Uint8Array }

/** Of device 0: what concerns all of the thread. */
export interface FromThread { readonly device: number; readonly message: FromDevice }

export type FromDevice =
  | { readonly kind: 'front-end'; readonly connected: boolean }
  /** `at`: performance.timeOrigin + now() when the request was taken, ms. Every one must be answered. */
  | { readonly kind: 'miss'; readonly token: number; readonly miss: Miss; readonly at: number }
  /** A whole request for a mount that the main thread serves, or (serial 0) for all of these; token 0: no answer is due. */
  | { readonly kind: 'request'; readonly token: number; readonly serial: number; readonly bytes: Uint8Array; readonly at: number }
  /** Nobody waits for the answer any more. */
  | { readonly kind: 'cancel'; readonly token: number }
  /** Answer to unmount: descriptors and mappings of the file system are not touched any more. */
  | { readonly kind: 'unmounted'; readonly serial: number }
  /** Answer to close: nothing of the device is touched any more. */
  | { readonly kind: 'closed' }
  | { readonly kind: 'request-error'; readonly opcode: number; readonly errno: number; readonly message: string }
  | { readonly kind: 'warning'; readonly message: string }
  | { readonly kind: 'failed'; readonly error: ErrorMessage }

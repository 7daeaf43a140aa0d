// Ranks below cli never print. They publish to these channels; cli subscribes and formats, metrics count from the same events.
// Name: <layer>:<noun>:<verb>. Fields carry their unit. Credentials never enter an event.

import { channel } from 'node:diagnostics_channel'

export interface Events {
  'build:source:warning': { readonly path: string; readonly reason: string }
  'registry:request:done': { readonly method: string; readonly url: string; readonly status: number; readonly durationMs: number; readonly bytes: number }
  'registry:request:retry': { readonly method: string; readonly url: string; readonly reason: string; readonly delayMs: number }
  'registry:credentials:skipped': { readonly host: string; readonly helper: string; readonly reason: string }
  'registry:proxy:ill': { readonly proxy: string; readonly reason: string }
  'registry:mirror:failed': { readonly mirror: string; readonly code: string; readonly message: string }
  'registry:access:done': { readonly method: string; readonly path: string; readonly status: number; readonly bytes: number; readonly range: string | undefined; readonly durationMs: number }
  'storage:backend:read': { readonly blobId: string; readonly offset: number; readonly bytes: number; readonly durationMs: number; readonly prefetch: boolean }
  'storage:backend:error': { readonly blobId: string; readonly code: string; readonly message: string }
  'storage:chunk:corrupt': { readonly blobId: string; readonly index: number; readonly source: 'backend' | 'cache' }
  'storage:cache:evicted': { readonly directory: string; readonly blobs: number; readonly bytes: number; readonly usedBytes: number }
  'storage:cache:degraded': { readonly directory: string; readonly reason: string }
  'image:layer:progress': { readonly digest: string; readonly phase: 'pull' | 'convert' | 'push' | 'done' | 'reused'; readonly bytes: number; readonly totalBytes: number }
  'image:step:done': { readonly step: string; readonly detail: string; readonly durationMs: number }
  'image:warning:raised': { readonly message: string }
  'serve:daemon:state': { readonly from: string; readonly to: string }
  'serve:guest:changed': { readonly socket: string; readonly connected: boolean }
  'serve:mount:done': { readonly mountpoint: string; readonly durationMs: number }
  'serve:request:error': { readonly opcode: number; readonly errno: number; readonly message: string }
  /** Asked again after a server died that had done it (then it is answered from the journal), or only begun it. */
  'serve:request:repeated': { readonly opcode: number; readonly done: boolean }
  'serve:transport:chosen': { readonly requested: string; readonly chosen: string; readonly reason: string }
  'serve:warning:raised': { readonly message: string }
}

/** Publish an event; costs one property read when nobody listens. */
export function publish<N extends keyof Events>(name: N, event: Events[N]): void {
  const target = channel(name)
  if (target.hasSubscribers) target.publish(event)
}

/** Subscribe; returns the function that ends the subscription. */
export function subscribe<N extends keyof Events>(name: N, listener: (event: Events[N]) => void): () => void {
  // SAFETY: `publish` is the only publisher and is typed by the same table.
  const untyped = (message: unknown) => listener(message as Events[N])
  const target = channel(name)
  target.subscribe(untyped)
  return () => void target.unsubscribe(untyped)
}

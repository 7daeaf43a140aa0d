// Progress as one listener: the events of image/ while one call runs.

import { subscribe } from '../core/diagnostics.ts'

/** What a listener hears. `bytes` and `totalBytes` are of the phase at hand; a total of 0 is not known. */
export type ProgressEvent =
  | { readonly type: 'layer'; readonly digest: string; readonly phase: 'pull' | 'convert' | 'push' | 'done' | 'reused'; readonly bytes: number; readonly totalBytes: number }
  | { readonly type: 'step'; readonly step: string; readonly detail: string; readonly durationMs: number }
  | { readonly type: 'warning'; readonly message: string }

export type ProgressListener = (event: ProgressEvent) => void

/** Runs `action` with `listener` subscribed. Calls that run at the same time in one process hear each other's events. */
export async function withProgress<T>(listener: ProgressListener | undefined, action: () => Promise<T>): Promise<T> {
  if (listener === undefined) return action()
  const ends = [
    subscribe('image:layer:progress', (event) => listener({ type: 'layer', ...event })),
    subscribe('image:step:done', (event) => listener({ type: 'step', ...event })),
    subscribe('image:warning:raised', (event) => listener({ type: 'warning', ...event })),
    subscribe('registry:credentials:skipped', ({ host, helper, reason }) => listener({ type: 'warning', message: `no credentials for ${host}: ${helper} is ${reason}` })),
    subscribe('build:source:warning', ({ path, reason }) => listener({ type: 'warning', message: `${path}: ${reason}` })),
  ]
  try {
    return await action()
  } finally {
    for (const end of ends) end()
  }
}

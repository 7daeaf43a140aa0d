// Waiting for a descriptor that Node has no stream for: sockets over which descriptors travel.

import { CodedError } from '../core/errors.ts'
import { native } from './load.ts'

/** SPEC: uv.h UV_READABLE, UV_WRITABLE, UV_PRIORITIZED (what a changed /proc/self/mountinfo says). */
const EVENT = { read: 1, write: 2, priority: 8 } as const

/** Calls `callback` whenever `fd` is ready, until the function that it returns is called (before the descriptor is closed). @throws NATIVE_SYSCALL */
export function watchDescriptor(fd: number, direction: keyof typeof EVENT, callback: () => void): () => void {
  const watch = native().watchBegin(fd, EVENT[direction], callback)
  if (typeof watch === 'number') throw new CodedError('NATIVE_SYSCALL', `cannot wait for a descriptor: errno ${-watch}`, { errno: -watch })
  return () => native().watchEnd(watch)
}

/** Resolves when `fd` is ready; rejects with `signal.reason` on abort. @throws NATIVE_SYSCALL */
export async function untilReady(fd: number, direction: keyof typeof EVENT, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  signal.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const finish = (settle: () => void): void => {
      signal.removeEventListener('abort', onAbort)
      end()
      settle()
    }
    const onAbort = (): void => finish(() => reject(signal.reason))
    const end = watchDescriptor(fd, direction, () => finish(resolve))
    signal.addEventListener('abort', onAbort)
  })
}

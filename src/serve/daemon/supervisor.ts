// The dialogue with a supervisor: a process that keeps the daemon's connection and state while daemons come and go. It listens, the daemon
// connects, once for each transfer, and the end of the stream is the end of the state.
// SPEC: spec-surface.md B.7.

import { CodedError } from '../../core/errors.ts'
import { KiB, MiB } from '../../core/units.ts'
import { native } from '../../native/load.ts'
import { untilReady } from '../../native/poll.ts'
import { ERRNO } from '../errno.ts'

/** LIMIT: a supervisor of the snapshotter waits this long for a daemon, so a daemon need not wait longer for it. */
const DIALOGUE_MS = 10_000
/** LIMIT: far above any real state (a thousand mounts are about 2 MiB). */
const MAX_STATE = 16 * MiB

/** What a supervisor keeps. The receiver of one owns the descriptor. */
export interface Kept { readonly bytes: Uint8Array; readonly fd: number }

interface DialogueOptions { readonly signal: AbortSignal }

/** Gives `kept` to the supervisor at `path`. The descriptor stays the caller's. @throws SERVE_SUPERVISOR */
export async function sendToSupervisor(path: string, { bytes, fd }: Kept, options: DialogueOptions): Promise<void> {
  await dialogue(path, options, async (socket, signal) => {
    // SPEC: the descriptor goes with the first bytes; whatever does not fit follows alone.
    for (let sent = 0; sent < bytes.length;) {
      const result = native().sendFds(socket, bytes.subarray(sent), Int32Array.from(sent === 0 ? [fd] : []))
      if (result === -ERRNO.EAGAIN) await untilReady(socket, 'write', { signal })
      else sent += checked(result, 'send to')
    }
  })
}

/** What the supervisor at `path` kept. @throws SERVE_SUPERVISOR, also when no descriptor came */
export async function receiveFromSupervisor(path: string, options: DialogueOptions): Promise<Kept> {
  let kept = -1
  try {
    return await dialogue(path, options, async (socket, signal) => {
      const parts: Uint8Array[] = []
      let size = 0
      for (;;) {
        const part = new Uint8Array(64 * KiB)
        const fds = new Int32Array(4)
        const result = native().receiveFds(socket, part, fds)
        if (result === -ERRNO.EAGAIN) {
          await untilReady(socket, 'read', { signal })
          continue
        }
        const length = checked(result, 'receive from')
        for (const fd of fds.filter((one) => one >= 0)) { // the first counts, as in upstream's receiver
          if (kept < 0) kept = fd
          else native().closeFd(fd)
        }
        if (length === 0) break
        size += length
        if (size > MAX_STATE) throw failure(`it sends more than ${MAX_STATE} bytes`)
        parts.push(part.subarray(0, length))
      }
      if (kept < 0) throw failure('it sent no descriptor')
      return { bytes: Buffer.concat(parts), fd: kept }
    })
  } catch (error) {
    if (kept >= 0) native().closeFd(kept)
    throw error
  }
}

async function dialogue<T>(path: string, { signal }: DialogueOptions, talk: (socket: number, signal: AbortSignal) => Promise<T>): Promise<T> {
  const timeout = AbortSignal.timeout(DIALOGUE_MS)
  const socket = checked(native().unixConnect(Buffer.from(path), false), 'connect to')
  try {
    return await talk(socket, AbortSignal.any([signal, timeout]))
  } catch (error) {
    throw timeout.aborted ? failure(`it does not answer within ${DIALOGUE_MS} ms`) : error
  } finally {
    native().closeFd(socket)
  }
}

function checked(result: number, what: string): number {
  if (result < 0) throw failure(`cannot ${what} it: errno ${-result}`)
  return result
}

function failure(why: string): CodedError {
  return new CodedError('SERVE_SUPERVISOR', `the supervisor is of no help: ${why}`)
}

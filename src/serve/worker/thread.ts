// Entry point of a worker thread.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { subscribe } from '../../core/diagnostics.ts'
import { toMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { portReceiver, serveLoop } from './loop.ts'
import type { FromWorker, WorkerStart } from './messages.ts'
import { openShared } from './open-shared.ts'

const port = parentPort
if (!port) throw new Error('worker/thread.ts runs as a worker thread only')
const post = (message: FromWorker): void => port.postMessage(message)

// Channels belong to a thread: what happens here is told to the main thread, where somebody listens.
subscribe('serve:request:error', (event) => post({ kind: 'request-error', ...event }))

try {
  const addon = native() // opens files
  post({ kind: 'ready' })
  // SAFETY: pool.ts starts this file with a WorkerStart.
  serveLoop({ native: addon, start: workerData as WorkerStart, receive: portReceiver(port, receiveMessageOnPort), post, open: openShared })
} catch (error) {
  post({ kind: 'failed', error: toMessage(error) })
}
port.close()

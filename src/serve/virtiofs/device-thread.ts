// Entry point of a thread of vhost-user-fs devices.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { subscribe } from '../../core/diagnostics.ts'
import { toMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { DeviceLoop } from './loop.ts'
import { openAlone } from './open-alone.ts'
import type { FromThread, ThreadStart, ToThread } from './messages.ts'

const port = parentPort
if (!port) throw new Error('virtiofs/device-thread.ts runs as a worker thread only')
const post = (message: FromThread): void => port.postMessage(message)
subscribe('serve:request:error', (event) => post({ device: 0, message: { kind: 'request-error', ...event } }))

try {
  // SAFETY: device-threads.ts starts this file with a ThreadStart and posts ToThread only.
  const start = workerData as ThreadStart
  const receive = (): ToThread | undefined => receiveMessageOnPort(port)?.message as ToThread | undefined
  new DeviceLoop({ ...start, native: native(), receive, post, open: openAlone }).run()
} catch (error) {
  post({ device: 0, message: { kind: 'failed', error: toMessage(error) } })
}
port.close()

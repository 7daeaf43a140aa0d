// Entry point of the thread of a vhost-user-fs device.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { subscribe } from '../../core/diagnostics.ts'
import { toMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { openShared } from '../worker/open-shared.ts'
import { DeviceLoop } from './loop.ts'
import type { DeviceStart, FromDevice, ToDevice } from './messages.ts'

const port = parentPort
if (!port) throw new Error('virtiofs/device-thread.ts runs as a worker thread only')
const post = (message: FromDevice): void => port.postMessage(message)
subscribe('serve:request:error', (event) => post({ kind: 'request-error', ...event }))

try {
  // SAFETY: device-host.ts starts this file with a DeviceStart and posts ToDevice only.
  const start = workerData as DeviceStart
  const receive = (): ToDevice | undefined => receiveMessageOnPort(port)?.message as ToDevice | undefined
  new DeviceLoop({ ...start, native: native(), receive, post, open: openShared }).run()
} catch (error) {
  post({ kind: 'failed', error: toMessage(error) })
}
port.close()

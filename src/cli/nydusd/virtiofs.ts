// `nydusd virtiofs`: the service of a virtual machine's device. Loaded only for it.

import { contentOf } from '../../native/memory-file.ts'
import { decodeState, StateSecrets } from '../../serve/index.ts'
import { DeviceThreads } from '../../serve/virtiofs/device-threads.ts'
import { VirtiofsDaemon } from '../../serve/virtiofs/virtiofs-daemon.ts'
import { openFirstMount, openMount } from './image.ts'
import type { Host, Service, Values } from './service.ts'

/** A daemon that listens on `--sock`, with the image of `--bootstrap` at its root if there is one. `isHandedOver`: it waits to be told by API instead. */
export async function virtiofsService(values: Values, { imagePullAuth, guest, keep, kept, failed, deviceThreads }: Host, isHandedOver: () => Promise<boolean>): Promise<Service> {
  const continued = guest && values.get('sock')
  const secrets = new StateSecrets(values.get('run-dir')!)
  const daemon = new VirtiofsDaemon({
    id: values.get('id') ?? '', supervisor: values.get('supervisor'), socket: values.get('sock')!, secrets,
    openMount: async (request, options) => await openMount(request, { ...options, imagePullAuth, continued, values }),
    ...(failed && { failed: (error) => failed(error) }),
    ...(deviceThreads && { threads: await deviceThreads() }),
    ...(guest && { holder: { isListening: guest.isListening, give: (...words) => guest.give(...words), keep: (bytes) => keep?.({ bytes, fds: [], mountpoint: '', device: '' }) } }),
  })
  return {
    daemon,
    async begin(signal) {
      if (kept) {
        const [state, ...fds] = kept.fds
        await daemon.continue(decodeState(kept.bytes, secrets), state === undefined ? undefined : { bytes: contentOf(state), fds })
        return
      }
      if (await isHandedOver()) return
      const root = await openFirstMount(values, { signal, imagePullAuth, continued })
      daemon.serve(root ? [root] : [])
    },
  }
}

/** Threads for the devices of a process that serves many daemons. */
export function newDeviceThreads(limit: number): DeviceThreads {
  return new DeviceThreads(limit)
}

// `nydusd virtiofs`: the service of a virtual machine's device. Loaded only for it.

import { VirtiofsDaemon } from '../../serve/virtiofs/virtiofs-daemon.ts'
import { openFirstMount, openMount } from './image.ts'
import type { Host, Service, Values } from './service.ts'

/** A daemon that listens on `--sock`, with the image of `--bootstrap` at its root if there is one. */
export function virtiofsService(values: Values, { imagePullAuth }: Host): Service {
  const daemon = new VirtiofsDaemon({ id: values.get('id') ?? '', supervisor: undefined, socket: values.get('sock')!, openMount: async (request, options) => await openMount(request, { ...options, imagePullAuth }) })
  return {
    daemon,
    async begin(signal) {
      const root = await openFirstMount(values, { signal, imagePullAuth })
      daemon.serve(root ? [root] : [])
    },
  }
}

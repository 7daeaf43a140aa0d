// `nydusd uffd`: the service of page faults. Loaded only for it.

import { UffdDaemon } from '../../serve/uffd/uffd-daemon.ts'
import { openDisk } from './image.ts'
import type { Host, Service, Values } from './service.ts'

/** A daemon that listens on `--sock` and serves the image of `--bootstrap` as a disk. */
export function uffdService(values: Values, { imagePullAuth }: Host): Service {
  const daemon = new UffdDaemon({ id: values.get('id') ?? '', socket: values.get('sock')! })
  return { daemon, begin: async (signal) => daemon.serve(await openDisk(values, { signal, imagePullAuth })) }
}

// mount(): an image of a registry, a layout or an archive as a directory, until closed.

import { mkdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { findNydusImage, mountImage, readBootstrap } from '../image/index.ts'
import { openSource, parseLocation, type RegistryOptions } from '../registry/index.ts'
import { nydusdCommand, platformOf, signalOf } from './places.ts'
import { type ProgressListener, withProgress } from './progress.ts'

export interface MountRequest {
  /** The Nydus image: `docker://REFERENCE` or a bare reference, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`. */
  readonly image: string
  /** Where; made when it is missing. */
  readonly mountpoint: string
  readonly registry?: RegistryOptions | undefined
  readonly platform?: string | undefined
  /** For bootstrap, configuration and cache. Removed on close if it was not there before. Default `./tmp`. */
  readonly workDirectory?: string | undefined
  readonly prefetch?: boolean | undefined
  /** A backend of nydusd's configuration, instead of where the image is. */
  readonly backend?: { readonly type: string; readonly config: unknown } | undefined
  /** Another nydusd. Default: this package's. */
  readonly nydusd?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
}

/** A mount. `close` unmounts; so does `await using`. */
export interface Mount extends AsyncDisposable {
  readonly mountpoint: string
  /** The manifest's digest. */
  readonly digest: string
  /** Process id of the daemon. */
  readonly pid: number
  /** Resolves when the daemon ends by itself: somebody unmounted, or it died. */
  readonly ended: Promise<void>
  close(): Promise<void>
}

/** Mounts lazily: files are fetched when they are read. Needs /dev/fuse and the right to mount. SERVE_MOUNT, IMAGE_INVALID, IMAGE_UNSUPPORTED, REGISTRY_*. */
export async function mount(request: MountRequest): Promise<Mount> {
  return withProgress(request.onProgress, () => open(request, signalOf(request.signal)))
}

async function open(request: MountRequest, signal: AbortSignal): Promise<Mount> {
  const location = parseLocation(request.image)
  const workDirectory = path.resolve(request.workDirectory ?? 'tmp')
  const made = await mkdir(workDirectory, { recursive: true })
  const clean = async () => {
    for (const name of ['nydus_bootstrap', 'nydusd_config.json', 'cache', 'blobs', 'api.sock']) await rm(path.join(workDirectory, name), { recursive: true, force: true })
    if (made !== undefined) await rm(made, { recursive: true, force: true })
  }
  try {
    const registry = request.registry ?? {}
    await using source = await openSource(location, { ...registry, workDirectory, signal })
    const image = await findNydusImage(source, { platform: platformOf(request.platform), signal })
    const bootstrap = await readBootstrap(source, image.bootstrap, { diffId: image.diffId, signal })
    const daemon = await mountImage({
      source, location, registry, image, bootstrap, mountpoint: request.mountpoint, workDirectory, prefetch: request.prefetch ?? false,
      backend: request.backend, nydusd: nydusdCommand(request.nydusd), signal,
    })
    const close = async () => {
      await daemon[Symbol.asyncDispose]()
      await clean()
    }
    return { mountpoint: path.resolve(request.mountpoint), digest: image.descriptor.digest, pid: daemon.pid, ended: daemon.ended, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await clean()
    throw error
  }
}

// `nydusd erofs`, and images that the API lets the kernel mount: from options and configuration to an opened image and its transport.

import path from 'node:path'
import { publish } from '../../core/diagnostics.ts'
import { type Daemon, type ErofsImage, type ErofsRequest, type Fill, mountBest } from '../../serve/index.ts'
import { parseConfig } from '../../storage/index.ts'
import { configurationOf, openFirstMount, openImage, type OpenOptions, prefetchFilesOf } from './image.ts'
import type { OptionName } from './options.ts'

type Values = ReadonlyMap<OptionName, string>

/** Mounts the image that the command line names, the best way that is possible and allowed. Throws what the mounts throw. */
export async function startErofs(daemon: Daemon, values: Values, options: OpenOptions): Promise<void> {
  // SAFETY: parseArguments admits these words only.
  const fill = values.get('fill') as Fill
  const transport = await mountBest(fill, {
    async mountErofs() {
      const { config } = await configurationOf(values, options.imagePullAuth)
      const request = { mountpoint: path.resolve(values.get('mountpoint')!), source: values.get('bootstrap')!, config, fill, prefetchFiles: prefetchFilesOf(values) }
      return await daemon.mountErofs(async () => await openErofs(request, options))
    },
    async mountFuse() {
      daemon.mount(await openFirstMount(values, options))
    },
  })
  daemon.transport = transport
  if (transport.chosen === 'fuse') publish('serve:transport:chosen', { ...transport }) // of the others the mounts say so
}

/** Opens an image that the kernel is to mount. @throws CONFIG_INVALID, SERVE_UNSUPPORTED, FORMAT_*, RAFS_NOT_FOUND */
export async function openErofs({ mountpoint, source, config, fill, prefetchFiles }: ErofsRequest, { signal, imagePullAuth }: OpenOptions): Promise<ErofsImage> {
  const settings = await parseConfig(config, { imagePullAuth })
  const opened = await openImage({ mountpoint: '/', type: 'Rafs', source, config, prefetchFiles }, settings, { signal })
  const { workDir, isCompressed, encryption } = settings.cache
  return {
    mountpoint, config, fill, prefetchFiles, source: opened.source, image: opened.fileSystem.image!, shownConfig: opened.shownConfig,
    cacheForm: { directory: workDir === undefined ? undefined : path.resolve(workDir), isCompressed, isEncrypted: encryption !== undefined },
    ...(opened.warmUp && { warmUp: opened.warmUp }),
  }
}

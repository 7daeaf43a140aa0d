// From options and configuration to an opened image: the only place of nydusd that builds backends.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { byteString } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { openConfiguredImage, prefetchImage, prefetchItem, prefetchOf, type RafsImage } from '../../rafs/index.ts'
import { type FileSystem, imageFileSystem, type MountedFileSystem, type MountRequest, type Watched } from '../../serve/index.ts'
import { openSharedDirectory } from '../../serve/passthrough/shared-directory.ts'
import { localfsConfig, type NetworkParts, type NydusConfig, parseConfig, shownConfig } from '../../storage/index.ts'
import type { OptionName } from './options.ts'

/** Loaded when it is needed: an HTTP client is a third of a start. */
export const NETWORK: NetworkParts = {
  rangeFetcher: async (config) => (await import('./network.ts')).rangeFetcherOf(config),
  httpClient: async (config) => (await import('./network.ts')).httpClientOf(config),
}

/** `imagePullAuth`: credentials that replace those of the configuration. `continued`: mountpoint or socket of a daemon that another process may continue. */
export interface OpenOptions { readonly signal: AbortSignal; readonly imagePullAuth: string | undefined; readonly resume?: boolean; readonly continued?: string | undefined }

/** What is to be mounted at the start, or undefined without a bootstrap or a directory; only with a bootstrap is the configuration read. @throws CONFIG_INVALID, FORMAT_*, RAFS_NOT_FOUND */
export async function openFirstMount(values: ReadonlyMap<OptionName, string>, { signal, imagePullAuth, continued }: OpenOptions): Promise<MountedFileSystem | undefined> {
  const mountpoint = values.get('virtual-mountpoint')!
  const directory = values.get('shared-dir')
  if (directory !== undefined) return openSharedDirectory({ mountpoint, type: 'PassthroughFs', source: directory, config: '' }, { records: recordsOf(values, continued) })
  const source = values.get('bootstrap')
  if (source === undefined) return undefined
  const { config, settings } = await configurationOf(values, imagePullAuth)
  return await openImage({ mountpoint, type: 'Rafs', source, config, prefetchFiles: prefetchFilesOf(values) }, settings, { signal })
}

/** The list of `--prefetch-files`, byte strings. */
export function prefetchFilesOf(values: ReadonlyMap<OptionName, string>): string[] | undefined {
  const list = values.get('prefetch-files')
  return list === undefined ? undefined : byteString(readGiven(list)).split('\n')
}

/** The image of --bootstrap to be read as a disk: of what no file uses the image may know nothing. @throws CONFIG_INVALID, FORMAT_*, RAFS_NOT_FOUND */
export async function openDisk(values: ReadonlyMap<OptionName, string>, { signal, imagePullAuth }: OpenOptions): Promise<RafsImage> {
  const { settings } = await configurationOf(values, imagePullAuth)
  return await openConfiguredImage(settings, { bootstrap: path.resolve(values.get('bootstrap')!), network: NETWORK, verify: 'where-possible', signal })
}

/** Opens what the API asks for, or a saved state has. @throws CONFIG_INVALID, SERVE_UNSUPPORTED, FORMAT_*, RAFS_NOT_FOUND */
export async function openMount(request: MountRequest, { signal, imagePullAuth, resume = false, continued, values }: OpenOptions & { readonly values: ReadonlyMap<OptionName, string> }): Promise<MountedFileSystem> {
  if (request.type === 'PassthroughFs') return openSharedDirectory(request, { records: recordsOf(values, continued), resume })
  if (request.type !== 'Rafs') throw new CodedError('SERVE_UNSUPPORTED', `nothing is mounted as ${request.type}`)
  return await openImage(request, await parseConfig(request.config, { imagePullAuth }), { signal, resume })
}

/** Opens an image with settings that are parsed already. @throws FORMAT_*, STORAGE_*, RAFS_NOT_FOUND */
export async function openImage(request: MountRequest, settings: NydusConfig, { signal, resume = false }: Pick<OpenOptions, 'signal' | 'resume'>): Promise<MountedFileSystem> {
  const { mountpoint, type, config, prefetchFiles } = request
  const source = path.resolve(request.source)
  const image = await openConfiguredImage(settings, { bootstrap: source, network: NETWORK, signal })
  const fileSystem = await fileSystemOf(image, settings, resume)
  return {
    mountpoint, type, source, config, fileSystem, shownConfig: shownConfig(settings), watched: watchedOf(settings),
    warmUp: (options) => warmUp(image, settings, prefetchFiles, options),
  }
}

async function fileSystemOf(image: RafsImage, { overlay }: NydusConfig, resume: boolean): Promise<FileSystem> {
  if (!overlay) return imageFileSystem(image)
  try {
    const { overlayFileSystem } = await import('../../serve/overlay/open.ts')
    return overlayFileSystem(image, overlay, { resume })
  } catch (error) {
    await image.close()
    throw error
  }
}

function watchedOf({ rafs: { iostatsFiles: files, accessPattern: pattern, latestReadFiles: latest } }: NydusConfig): Watched {
  return { files, pattern, latest }
}

// A first read needs its blob's chunk information: while the first worker still starts, this thread has nothing else to do.
async function warmUp(image: RafsImage, settings: NydusConfig, files: readonly string[] | undefined, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  await Promise.allSettled(image.blobs.map((blob) => blob.layout({ signal }))) // who reads will hear of a failure
  const config = prefetchOf(settings)
  const items = files?.map((line) => prefetchItem(line)).filter((item) => item !== undefined)
  if (config.enable) await prefetchImage(image, { config, files: items, signal })
}

/** Where it is recorded what clients of shared directories know. */
function recordsOf(values: ReadonlyMap<OptionName, string>, continued: string | undefined): string | undefined {
  return continued && path.join(values.get('run-dir')!, `shared-${createHash('sha256').update(path.resolve(continued)).digest('hex').slice(0, 16)}`)
}

/** The text of the configuration that the command line names, and what it says. */
export async function configurationOf(values: ReadonlyMap<OptionName, string>, imagePullAuth: string | undefined): Promise<{ config: string; settings: NydusConfig }> {
  const directory = values.get('localfs-dir')
  if (directory !== undefined) {
    const settings = localfsConfig(path.resolve(directory))
    return { config: JSON.stringify(shownConfig(settings)), settings }
  }
  const file = values.get('config')
  if (file === undefined) throw new CodedError('CONFIG_INVALID', 'an image needs --config or --localfs-dir: where are its blobs?')
  const config = readGiven(file).toString('utf8')
  return { config, settings: await parseConfig(config, { imagePullAuth }) }
}

function readGiven(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `cannot read ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

// Which mount a request of the API is about, and what it asks for.
// SPEC: spec-surface.md B.5.

import { fromText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import type { RafsImage } from '../../rafs/index.ts'
import type { MountRequest } from '../daemon/file-system.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { ErofsRequest } from '../erofs/erofs-mounts.ts'
import { FILLS } from '../erofs/transport.ts'

interface Mounts { mounts(): MountInfo[] }

/** A mount that shows an image. */
export interface ImageMount extends MountInfo { readonly fileSystem: MountInfo['fileSystem'] & { readonly image: RafsImage } }

/** The mount of `id`, a mountpoint; without one there must be exactly one. @throws SERVE_NO_METRICS */
export function mountOf(daemon: Mounts, query: URLSearchParams): MountInfo {
  const mounts = daemon.mounts()
  const id = query.get('id')
  return found(id === null ? (mounts.length === 1 ? mounts[0] : undefined) : mounts.find(({ mountpoint }) => mountpoint === id), id)
}

/** The mount whose cache has the name `id`, which is the configuration's; with or without a leading slash, see spec-surface.md B.5. @throws SERVE_NO_METRICS */
export function cacheOf(daemon: Mounts, query: URLSearchParams): ImageMount {
  const images = daemon.mounts().filter(isImage)
  const id = query.get('id')
  return found(id === null ? (images.length === 1 ? images[0] : undefined) : images.find(({ fileSystem: { image } }) => image.id === id || image.id === `/${id}`), id)
}

/** @throws SERVE_NO_METRICS */
export function imageOf(mount: MountInfo): RafsImage {
  return found(mount.fileSystem.image, mount.mountpoint)
}

/** Whether it shows an image. */
export function isImage(mount: MountInfo): mount is ImageMount {
  return mount.fileSystem.image !== undefined
}

function found<T>(value: T | undefined, id: string | null): T {
  if (value === undefined) throw new CodedError('SERVE_NO_METRICS', id === null ? 'no id is given, and there is not exactly one to choose' : `nothing is counted under ${id}`)
  return value
}

/** The mount at the query's `mountpoint`. @throws SERVE_NOT_MOUNTED */
export function mountAt(daemon: Mounts, query: URLSearchParams): MountInfo {
  const mountpoint = mountpointOf(query)
  const mount = daemon.mounts().find((one) => one.mountpoint === mountpoint)
  if (!mount) throw new CodedError('SERVE_NOT_MOUNTED', `nothing is mounted on ${mountpoint}`, { mountpoint })
  return mount
}

/** The query's `mountpoint`. @throws CONFIG_INVALID */
export function mountpointOf(query: URLSearchParams): string {
  const mountpoint = query.get('mountpoint')
  if (mountpoint === null) throw new CodedError('CONFIG_INVALID', "the query has no 'mountpoint'")
  return mountpoint
}

/** Body and query of a mount. @throws CONFIG_INVALID */
export function mountRequest(query: URLSearchParams, body: unknown): MountRequest {
  // SAFETY: an object by the check; its fields stay unknown.
  const fields = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  const { source, config, fs_type: type = 'rafs', prefetch_files: files } = fields
  if (typeof source !== 'string' || typeof config !== 'string' || typeof type !== 'string') throw new CodedError('CONFIG_INVALID', 'want {"source": PATH, "fs_type": "rafs", "config": TEXT}')
  const prefetchFiles = Array.isArray(files) ? files.filter((file) => typeof file === 'string').map(fromText) : undefined
  return { mountpoint: mountpointOf(query), type: fileSystemType(type), source, config, prefetchFiles }
}

/** Our addition: `fs_type` erofs mounts on a directory of the host, `fill` says how its data arrives. Undefined for another type. @throws CONFIG_INVALID */
export function erofsRequest(query: URLSearchParams, body: unknown): ErofsRequest | undefined {
  // SAFETY: an object by the check; its fields stay unknown.
  const { fs_type: type, fill = 'auto', ...rest } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  if (type !== 'erofs') return undefined
  const known = FILLS.find((one) => one === fill)
  if (known === undefined) throw new CodedError('CONFIG_INVALID', `fill must be one of ${FILLS.join(', ')}`)
  const { mountpoint, source, config, prefetchFiles } = mountRequest(query, rest)
  return { mountpoint, source, config, prefetchFiles, fill: known }
}

// COMPAT: the words that upstream's parser takes.
function fileSystemType(type: string): MountRequest['type'] {
  if (type === 'rafs') return 'Rafs'
  if (/^passthrough_?fs$/.test(type)) return 'PassthroughFs'
  throw new CodedError('CONFIG_INVALID', `no such fs_type: ${type.slice(0, 50)}`)
}

// What the API answers with: numbers and names of the daemon in upstream's shape.
// SPEC: spec-surface.md B.5, F.1. Go decodes counters as unsigned 64-bit integers: plain non-negative integers only.

import { EROFS_SUPER_MAGIC_V1 } from '../../format/erofs/super-block.ts'
import type { RafsImage } from '../../rafs/index.ts'
import { cacheHits, fsIoStats } from '../counters.ts'
import type { Daemon } from '../daemon/daemon.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { Inflight } from '../miss-desk.ts'
import { type ImageMount, isImage } from './instances.ts'

/** What GET /api/v1/daemon says of the program. */
export interface ProgramVersion { readonly package_ver: string; readonly git_commit: string; readonly build_time: string; readonly profile: string; readonly rustc: string }

/** Version and state. */
export function describe(daemon: Pick<Daemon, 'id' | 'supervisor' | 'state'>, version: ProgramVersion): object {
  return { version, id: daemon.id === '' ? null : daemon.id, supervisor: daemon.supervisor ?? null, state: daemon.state }
}

/** Mounts by mountpoint. */
export function collection(daemon: Pick<Daemon, 'mounts'>): object {
  return Object.fromEntries(daemon.mounts().map(({ mountpoint, mountedAt, shownConfig: config, fileSystem: { type: backend_type }, transport }) =>
    [mountpoint, { backend_type, mountpoint, mounted_time: rustTime(mountedAt), config, ...(transport && { transport }) }]))
}

/** COMPAT: the human-readable form of Rust's `time` crate, which upstream's nydusctl parses: `2026-01-31 12:00:00.5 +00:00:00`. */
function rustTime(date: Date): string {
  const [day, time] = date.toISOString().slice(0, -1).split('T')
  return `${day} ${time!.replace(/0{1,2}$/, '')} +00:00:00`
}

/** File system operations of a mount. */
export function fsStats({ mountpoint, counters, accounts }: MountInfo): object {
  return fsIoStats(counters, mountpoint, accounts()?.watched)
}

/** A mount's cache: what the main thread counted, and the reads that workers answered from it alone. */
export function cacheStats({ fileSystem: { image }, counters }: ImageMount): object {
  const { cacheMetrics } = image
  const hits = cacheHits(counters)
  return { ...cacheMetrics.toJSON(), whole_hits: cacheMetrics.wholeHits + hits, total: cacheMetrics.total + hits }
}

/** SPEC: nydus rafs/src/metadata/mod.rs RAFS_SUPER_VERSION_V6. */
const RAFS_SUPER_VERSION_V6 = 0x600
const DEVICE_SLOT = 128
const PREFETCH_ENTRY = 4
const FOREVER = { secs: 2 ** 32, nanos: 0 }

/** COMPAT: upstream's RafsSuperMeta; what belongs to version 5 only is 0. */
export function superBlockOf({ view: { superBlock, ext, chunkSize, rootNid } }: RafsImage): object {
  return {
    magic: EROFS_SUPER_MAGIC_V1, version: RAFS_SUPER_VERSION_V6, sb_size: 0, root_inode: 0, chunk_size: chunkSize, batch_size: 0, inodes_count: Number(superBlock.inodeCount),
    flags: { bits: Number(ext.flags) }, inode_table_entries: 0, inode_table_offset: 0, blob_table_size: ext.blobTableSize, blob_table_offset: ext.blobTableOffset,
    extended_blob_table_offset: 0, extended_blob_table_entries: 0, blob_device_table_count: superBlock.extraDevices, blob_device_table_offset: superBlock.deviceSlot * DEVICE_SLOT,
    prefetch_table_offset: ext.prefetchTableOffset, prefetch_table_entries: ext.prefetchTableSize / PREFETCH_ENTRY, attr_timeout: FOREVER, entry_timeout: FOREVER,
    is_chunk_dict: false, meta_blkaddr: superBlock.metaBlock, root_nid: rootNid, chunk_table_offset: ext.chunkTableOffset, chunk_table_size: ext.chunkTableSize,
  }
}

/** A read under way. */
export function inflightRequest({ inode, opcode, unique, at }: Inflight): object {
  return { inode, opcode, unique: Number(unique), timestamp_secs: Math.floor(at / 1000) }
}

/** Our addition: everything that is counted, by mount, in one answer; `nydusctl top` lives on it. */
export function allMetrics(daemon: Pick<Daemon, 'mounts' | 'inflight'>): object[] {
  const now = performance.timeOrigin + performance.now()
  const inflight = daemon.inflight()
  return daemon.mounts().map((mount) => ({
    mountpoint: mount.mountpoint,
    fs: fsStats(mount),
    cache: isImage(mount) ? cacheStats(mount) : null,
    backend: isImage(mount) ? mount.fileSystem.image.backendMetrics : null,
    inflight: inflight.filter(({ serial }) => serial === mount.serial).map((request) => ({ ...inflightRequest(request), age_millis: Math.max(0, Math.floor(now - request.at)) })),
  }))
}

/** What a backend may be told anew at run time, without secrets. */
export function changeableConfig({ shownConfig }: MountInfo): object {
  const proxy = field(field(field(shownConfig, 'backend'), 'registry'), 'proxy')
  const [url, scheduler] = [field(proxy, 'url'), field(proxy, 'dragonfly_scheduler_endpoint')]
  return { ...(typeof url === 'string' && url !== '' && { proxy_url: url }), ...(typeof scheduler === 'string' && { dragonfly_scheduler_endpoint: scheduler }) }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Object.entries(value).find(([key]) => key === name)?.[1] : undefined
}

// What the API answers with: numbers and names of the daemon in upstream's shape.
// SPEC: spec-surface.md B.5, F.1. Go decodes counters as unsigned 64-bit integers: plain non-negative integers only.

import type { ImageMount } from './instances.ts'
import { cacheHits, fsIoStats } from '../counters.ts'
import type { Daemon } from '../daemon/daemon.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { Inflight } from '../miss-desk.ts'
import { isImage } from './instances.ts'

/** What GET /api/v1/daemon says of the program. */
export interface ProgramVersion { readonly package_ver: string; readonly git_commit: string; readonly build_time: string; readonly profile: string; readonly rustc: string }

/** Version and state. */
export function describe(daemon: Pick<Daemon, 'id' | 'supervisor' | 'state'>, version: ProgramVersion): object {
  return { version, id: daemon.id === '' ? null : daemon.id, supervisor: daemon.supervisor ?? null, state: daemon.state }
}

/** Mounts by mountpoint. */
export function collection(daemon: Pick<Daemon, 'mounts'>): object {
  return Object.fromEntries(daemon.mounts().map(({ mountpoint, mountedAt, shownConfig: config, fileSystem: { type: backend_type } }) =>
    [mountpoint, { backend_type, mountpoint, mounted_time: rustTime(mountedAt), config }]))
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

// Which way an image is mounted, and why: what the user asked for, what this program has, and what the kernel allows.

import os, { constants } from 'node:os'
import { CodedError, hasCode } from '../../core/errors.ts'

/** What may be asked for: `nydusd erofs --fill`. */
export const FILLS = ['auto', 'fanotify', 'fileio'] as const
export type Fill = (typeof FILLS)[number]

/** What was chosen, and why not what would have been better. For the log and the API. */
export interface Transport {
  readonly requested: Fill
  readonly chosen: 'fanotify' | 'fileio' | 'fuse'
  readonly reason: string
  /** Blobs whose cache file is the device itself: complete, and verified since this boot. */
  readonly directBlobs?: number
}

/** File-backed EROFS mounts. */
const MIN_KERNEL = [6, 12] as const
/** FAN_PRE_ACCESS. */
const MIN_FANOTIFY_KERNEL = [6, 14] as const

/**
 * Mounts by `mountErofs`, or by `mountFuse` where the kernel cannot and `requested` leaves it to us. SERVE_MOUNT with what the kernel lacks, and
 * what `mountErofs` throws, when it was asked for by name.
 */
export async function mountBest(requested: Fill, { mountErofs, mountFuse }: { readonly mountErofs: () => Promise<Transport>; readonly mountFuse: () => Promise<void> }): Promise<Transport> {
  const lacking = kernelLack(requested)
  if (lacking === undefined) {
    try {
      return await mountErofs()
    } catch (error) {
      if (requested !== 'auto' || !isForFuse(error)) throw error
      await mountFuse()
      return { requested, chosen: 'fuse', reason: error.message }
    }
  }
  if (requested !== 'auto') throw new CodedError('SERVE_MOUNT', `kernel EROFS: ${lacking}`)
  await mountFuse()
  return { requested, chosen: 'fuse', reason: `kernel EROFS: ${lacking}` }
}

/** What this machine lacks for kernel EROFS, as far as that can be told without a mount. `release` as uname has it. */
export function kernelLack(fill: Fill, release = os.release(), uid = process.geteuid?.() ?? 0): string | undefined {
  if (isOlder(release, MIN_KERNEL)) return `mounting from files needs Linux ${MIN_KERNEL.join('.')} with CONFIG_EROFS_FS_BACKED_BY_FILE, this is ${release}`
  if (fill === 'fanotify' && isOlder(release, MIN_FANOTIFY_KERNEL)) {
    return `filling by fanotify needs Linux ${MIN_FANOTIFY_KERNEL.join('.')} with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, this is ${release}`
  }
  return uid === 0 ? undefined : 'mounting needs root in the initial user namespace'
}

function isOlder(release: string, [wantedMajor, wantedMinor]: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number)
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor)
}

/** What an errno of a mount says of the kernel, or undefined. */
export function explainErrno(errnoName: unknown): string | undefined {
  switch (errnoName) {
    case 'ENODEV': return 'the kernel has no EROFS (CONFIG_EROFS_FS; is the module loaded?)'
    case 'ENOTBLK': return 'the kernel mounts EROFS from block devices only (CONFIG_EROFS_FS_BACKED_BY_FILE is missing), or the bootstrap is on a stacked file system'
    case 'EPERM': return 'mounting is not permitted (CAP_SYS_ADMIN in the initial user namespace)'
    default: return undefined
  }
}

/** What an errno of fanotify_mark(2) says. */
export function explainMark(errno: number): string {
  switch (errno) {
    case constants.errno.EOPNOTSUPP: return 'its file system knows no pre-content events (ext4, xfs and btrfs do; tmpfs and overlay do not)'
    case constants.errno.EINVAL: return 'the kernel knows no pre-content events (Linux 6.14, CONFIG_FANOTIFY_ACCESS_PERMISSIONS)'
    default: return `errno ${errno}`
  }
}

function isForFuse(error: unknown): error is CodedError {
  return hasCode(error, 'FORMAT_UNSUPPORTED') || hasCode(error, 'SERVE_MOUNT')
}

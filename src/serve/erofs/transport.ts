// Which way an image is mounted, and why: what the user asked for, what this program has, and what the kernel allows.

import os from 'node:os'
import { CodedError, hasCode } from '../../core/errors.ts'

/** What may be asked for: `nydusd erofs --fill`. */
export const FILLS = ['auto', 'fanotify', 'fileio'] as const
export type Fill = (typeof FILLS)[number]

/** What was chosen, and why not what would have been better. For the log and the API. */
export interface Transport {
  readonly requested: Fill
  readonly chosen: 'fileio' | 'fuse'
  readonly reason: string
  /** Blobs whose cache file is the device itself: complete, and verified since this boot. */
  readonly directBlobs?: number
}

/** File-backed EROFS mounts. */
const MIN_KERNEL = [6, 12] as const
const FANOTIFY_REASON = 'fanotify is not in this version: without a keeper that holds its descriptors, readers would see zeros when a daemon dies'

/**
 * Mounts by `mountErofs`, or by `mountFuse` where the kernel cannot and `requested` leaves it to us. SERVE_UNSUPPORTED for fanotify;
 * what `mountErofs` throws when it was asked for by name.
 */
export async function mountBest(requested: Fill, { mountErofs, mountFuse }: { readonly mountErofs: () => Promise<void>; readonly mountFuse: () => Promise<void> }): Promise<Transport> {
  refuseFanotify(requested)
  const fileio: Transport = { requested, chosen: 'fileio', reason: fileioReason(requested) }
  const lacking = kernelLack()
  if (lacking === undefined) {
    try {
      await mountErofs()
      return fileio
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

/** SERVE_UNSUPPORTED where fanotify is asked for by name. */
export function refuseFanotify(requested: Fill): void {
  if (requested === 'fanotify') throw new CodedError('SERVE_UNSUPPORTED', `fill fanotify: ${FANOTIFY_REASON}; use fileio or auto`, { requested })
}

/** Why fileio was taken. */
export function fileioReason(requested: Fill): string {
  return requested === 'fileio' ? 'asked for' : FANOTIFY_REASON
}

/** What this machine lacks for kernel EROFS, as far as that can be told without a mount. `release` as uname has it. */
export function kernelLack(release = os.release(), uid = process.geteuid?.() ?? 0): string | undefined {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number)
  if (major < MIN_KERNEL[0] || (major === MIN_KERNEL[0] && minor < MIN_KERNEL[1])) {
    return `mounting from files needs Linux ${MIN_KERNEL.join('.')} with CONFIG_EROFS_FS_BACKED_BY_FILE, this is ${release}`
  }
  return uid === 0 ? undefined : 'mounting needs root in the initial user namespace'
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

function isForFuse(error: unknown): error is CodedError {
  return hasCode(error, 'FORMAT_UNSUPPORTED') || hasCode(error, 'SERVE_MOUNT')
}

// What the next server is told of kernel EROFS mounts that the keeper holds devices of. It stays in memory, since configurations may hold credentials.

import type { Fill } from './transport.ts'

/** A mount, made or going to be made. */
export interface KeptMount {
  readonly mountpoint: string
  /** Path of the bootstrap that was asked for, and of the one that the kernel was given. */
  readonly source: string
  readonly kernelSource: string
  readonly config: string
  readonly fill: Fill
  readonly prefetchFiles?: readonly string[] | undefined
  /** As sysfs has it; undefined until it is mounted. */
  readonly superblock?: string | undefined
}

const VERSION = 1

/** Mounts → bytes, for the keeper. */
export function encodeMounts(mounts: readonly KeptMount[]): Uint8Array {
  return Buffer.from(JSON.stringify({ version: VERSION, mounts }))
}

/** None when they were written by another version: their devices stay the keeper's, and reads of them fail. */
export function decodeMounts(bytes: Uint8Array): readonly KeptMount[] {
  // SAFETY: `encodeMounts` wrote it, and it was in the hands of the keeper alone.
  const { version, mounts } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { version: number; mounts: readonly KeptMount[] }
  return version === VERSION ? mounts : []
}

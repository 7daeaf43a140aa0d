// Names of what a daemon has of kernel EROFS in its run directory, by what it is known as: its mountpoint.

import { createHash } from 'node:crypto'
import path from 'node:path'

export interface ErofsNames {
  /** Directory: FUSE, one directory for each device. */
  readonly devices: string
  readonly journal: string
  /** Socket: here the keeper of fanotify's descriptors listens, if there is one. */
  readonly keeper: string
}

/** Paths below `runDirectory` of the daemon that is known as `name`. */
export function erofsNames(runDirectory: string, name: string): ErofsNames {
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 16)
  const devices = path.join(runDirectory, `devices-${hash}`)
  return { devices, journal: `${devices}.json`, keeper: path.join(runDirectory, `keeper-${hash}`) }
}

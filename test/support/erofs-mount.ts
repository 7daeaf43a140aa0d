// Mounts an image with the kernel's own EROFS driver: bootstrap as the device, decompressed blobs as extra devices.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { checked } from '../../src/native/errno.ts'
import { native } from '../../src/native/load.ts'
import { deviceOf } from './built-image.ts'

const MS_RDONLY = 1
const MNT_DETACH = 2

export interface ErofsMount extends Disposable {
  readonly mountpoint: string
  readonly bootstrap: string
  /** Decompressed blobs, in slot order. */
  readonly devices: readonly string[]
}

/** Unmounted and removed when disposed. Needs root and Linux with file-backed EROFS mounts (6.12). */
export function mountErofs(bootstrap: Uint8Array, blobs: ReadonlyMap<string, Uint8Array>): ErofsMount {
  const base = mkdtempSync(path.join(tmpdir(), 'nydus-erofs-'))
  const file = path.join(base, 'image.boot')
  const mountpoint = path.join(base, 'mnt')
  mkdirSync(mountpoint)
  writeFileSync(file, bootstrap)
  const devices = BootstrapView.open(bootstrap).blobs.map((record) => {
    const device = path.join(base, `device${record.index}`)
    writeFileSync(device, deviceOf(blobs.get(record.blobId)!, record))
    return device
  })
  try {
    mountErofsFiles({ bootstrap: file, mountpoint, devices })
  } catch (error) {
    rmSync(base, { recursive: true, force: true })
    throw error
  }
  return {
    mountpoint, bootstrap: file, devices,
    [Symbol.dispose]() {
      native().umount(Buffer.from(mountpoint), MNT_DETACH)
      rmSync(base, { recursive: true, force: true })
    },
  }
}

/** Mounts files as they are: `devices` in slot order. Unmounted when disposed. */
export function mountErofsFiles({ bootstrap, mountpoint, devices }: Pick<ErofsMount, 'bootstrap' | 'mountpoint' | 'devices'>): Disposable {
  const options = devices.map((device) => `device=${device}`).join(',')
  checked(native().mount(Buffer.from(bootstrap), Buffer.from(mountpoint), 'erofs', MS_RDONLY, Buffer.from(options)), 'mount', bootstrap)
  return { [Symbol.dispose]: () => void native().umount(Buffer.from(mountpoint), MNT_DETACH) }
}

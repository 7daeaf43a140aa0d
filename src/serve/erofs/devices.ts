// How the kernel gets at a mount's devices: by the best way that was asked for and that is possible.

import { hasCode } from '../../core/errors.ts'
import { MAX_OPTION_VALUE } from '../../native/mount.ts'
import type { DeviceFile } from './device-file.ts'
import type { DeviceSession } from './device-session.ts'
import type { Filler } from './filler.ts'
import { type Fill, kernelLack, type Transport } from './transport.ts'

/** Paths of `files` for the kernel, in their order, and what was chosen. @throws what stands in the way of the way that was asked for by name */
export async function devicesFor(requested: Fill, files: readonly DeviceFile[], { filler, session }: { readonly filler: Filler; readonly session: DeviceSession }): Promise<{ devices: string[]; transport: Transport }> {
  const complete = files.map(completeDevice)
  const directBlobs = complete.filter((path) => path !== undefined).length
  const through = async (show: (file: DeviceFile) => Promise<string>): Promise<string[]> => {
    const devices: string[] = []
    for (const [index, file] of files.entries()) devices.push(complete[index] ?? await show(file))
    return devices
  }
  let reason = requested === 'auto' ? kernelLack('fanotify') : 'asked for'
  if (requested === 'fanotify' || (requested === 'auto' && reason === undefined)) {
    const held: DeviceFile[] = []
    try {
      const devices = await through(async (file) => {
        if (!filler.isHeld(file)) held.push(file)
        return await filler.hold(file)
      })
      return { devices, transport: { requested, chosen: 'fanotify', reason: reason ?? 'the kernel asks before it reads, and both holders of its questions run', directBlobs } }
    } catch (error) {
      if (requested !== 'auto' || (!hasCode(error, 'SERVE_KEEPER') && !hasCode(error, 'NATIVE_UNAVAILABLE'))) throw error
      for (const file of held) await filler.release(file)
      reason = `fanotify: ${error.message}`
    }
  }
  return { devices: await through(async (file) => await session.show(file)), transport: { requested, chosen: 'fileio', reason: reason ?? '', directBlobs } }
}

function completeDevice(file: DeviceFile): string | undefined {
  const path = file.completePath
  return path !== undefined && Buffer.byteLength(path) <= MAX_OPTION_VALUE ? path : undefined
}

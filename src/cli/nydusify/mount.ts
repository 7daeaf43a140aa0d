// `nydusify mount`: mounts, waits for a signal or for somebody else's umount, leaves nothing behind.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { refusal } from '../../image/index.ts'
import { mount } from '../../library/mount.ts'
import { usageError, type Values } from './flags.ts'
import { log } from './log.ts'
import { showProgress } from './progress.ts'
import { registryOf } from './registry-flags.ts'
import { untilSignal } from '../signals.ts'

/** Runs `nydusify mount` until a signal ends it; resolves with the exit code. */
export async function mountFromCommandLine(values: Values): Promise<number> {
  const backend = backendOf(values)
  await untilSignal(async (signal) => {
    const display = showProgress()
    try {
      await using mounted = await mount({
        image: values.text('target'), mountpoint: values.text('mount-path'), registry: registryOf({ insecure: values.isOn('target-insecure') }),
        platform: values.text('platform'), workDirectory: values.text('work-dir'), prefetch: values.isOn('prefetch'), backend,
        nydusd: values.isSet('nydusd') ? values.text('nydusd') : undefined, signal, onProgress: display.hear,
      })
      display.close()
      log.info(`mounted ${values.text('target')} (${mounted.digest}) on ${mounted.mountpoint}; Ctrl-C unmounts`)
      const byOthers = await Promise.race([mounted.ended.then(() => true), once(signal, 'abort').then(() => false)])
      log.info(byOthers ? `${mounted.mountpoint} was unmounted` : `unmounting ${mounted.mountpoint}`)
    } finally {
      display.close()
    }
  })
  return 0
}

/** `--backend-type` and its configuration. */
function backendOf(values: Values): { type: string; config: unknown } | undefined {
  const type = values.optional('backend-type')
  if (type === undefined) return undefined
  if (type !== 'localfs') throw refusal('not-here', `--backend-type ${type}`)
  const [inline, file] = [values.optional('backend-config'), values.optional('backend-config-file')]
  if (inline !== undefined && file !== undefined) throw usageError('--backend-config conflicts with --backend-config-file')
  const text = inline ?? (file === undefined ? undefined : readFileSync(file, 'utf8'))
  if (text === undefined) throw usageError('--backend-config or --backend-config-file is required')
  return { type, config: JSON.parse(text) }
}

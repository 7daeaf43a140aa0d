// `nydusify check`: each difference a line, exit 1 when there is one.

import { refusal } from '../../image/index.ts'
import { check } from '../../library/check.ts'
import type { Values } from './flags.ts'
import { log } from './log.ts'
import { showProgress } from './progress.ts'
import { registryOf } from './registry-flags.ts'
import { untilSignal } from '../signals.ts'

/** Runs `nydusify check`; resolves with the exit code: 0 equal, 1 different or failed. */
export async function checkFromCommandLine(values: Values): Promise<number> {
  for (const flag of ['source-backend-type', 'target-backend-type']) if (values.isSet(flag)) throw refusal('not-here', `--${flag}`)
  const display = showProgress()
  try {
    const report = await untilSignal((signal) => check({
      target: values.text('target'), source: values.optional('source'),
      targetRegistry: registryOf({ insecure: values.isOn('target-insecure') }), sourceRegistry: registryOf({ insecure: values.isOn('source-insecure') }),
      platform: values.text('platform'), bothKinds: values.isOn('multi-platform'),
      workDirectory: values.text('work-dir'), documentsDirectory: values.text('work-dir'),
      nydusd: values.isSet('nydusd') ? values.text('nydusd') : undefined,
      onFinding: ({ part, message }) => log.warn(`${part}: ${message}`), onProgress: display.hear, signal,
    }))
    const looked = report.how === undefined ? `${report.inodes} inodes; files were not compared: there is no --source` : `${report.inodes} inodes, ${report.files} files of ${report.bytes} bytes, ${report.how}`
    if (report.findings.length === 0) {
      log.info(`${values.text('target')} is verified: ${looked}`)
      return 0
    }
    log.fatal(`${values.text('target')} has ${report.findings.length} differences: ${looked}`)
    return 1
  } finally {
    display.close()
  }
}

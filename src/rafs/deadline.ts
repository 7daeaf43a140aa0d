// How long a read may take: whoever waits for a file must hear of it while there is still somebody who cares.

import type { BackendConfig } from '../storage/index.ts'

/** LIMIT: with the default configuration no read takes longer than 20 s; the rest is for the answer's way through the kernel. */
export const READ_DEADLINE_MS = 18_000

/** Milliseconds; 0 for never. Longer than the default only where the configuration asks for longer attempts or more of them. */
export function readDeadlineOf(config: BackendConfig): number {
  if (!('timeoutMs' in config)) return 0
  return Math.max(READ_DEADLINE_MS, (config.retryLimit + 1) * config.timeoutMs * 1.2)
}

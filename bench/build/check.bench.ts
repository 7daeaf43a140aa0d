// `nydus-image check` against upstream's: an image of 70,000 files, and one with a directory of 40,000 entries. Prints JSON: seconds, peak memory, ratios.
//   [NYDUS_PEER_IMAGE=…/nydus-image] [ROUNDS=3] node bench/run.mjs build/check

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { largeBootstrap } from '../../test/support/large-image.ts'
import { compete, type Contestant } from './measure.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-check-'))
const peer = process.env['NYDUS_PEER_IMAGE']
const check = (bootstrap: string) => ['check', '--log-level', 'error', '--bootstrap', bootstrap]

try {
  // Entries by directory: the large image has one of 20,000, as real images have.
  for (const [title, directories] of [['70,000 files', [20_000, ...Array.from({ length: 1000 }, () => 50)]], ['one directory of 40,000 entries', [40_000]]] as const) {
    const bootstrap = path.join(base, `${directories.length}.boot`)
    writeFileSync(bootstrap, largeBootstrap([...directories]))
    const contestants: Contestant[] = [{ name: 'ours', argv: () => [process.execPath, path.join(ROOT, 'bin/nydus-image'), ...check(bootstrap)] }]
    if (peer !== undefined) contestants.push({ name: 'upstream', argv: () => [peer, ...check(bootstrap)] })
    compete(`check, ${title}`, contestants, { rounds: Number(process.env['ROUNDS'] ?? 3), sizeOf: () => 0 })
  }
} finally {
  rmSync(base, { recursive: true, force: true })
}

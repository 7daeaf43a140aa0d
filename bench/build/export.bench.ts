// `nydus-image export --block` against upstream's. Prints JSON: wall and CPU seconds, peak memory, and the ratios.
//   CORPUS=/opt/corpus/… a directory tree of about 1 GB   [NYDUS_PEER_IMAGE=…/nydus-image] [ROUNDS=3] [VERITY=1] node bench/run.mjs build/export

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { compete } from './measure.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const BUILDER = path.join(ROOT, 'bin/nydus-image')
const { CORPUS: corpus, NYDUS_PEER_IMAGE: peer } = process.env
if (corpus === undefined) throw new Error('CORPUS must name a directory')

const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-export-'))
try {
  const bootstrap = path.join(base, 'image.boot')
  const blobs = path.join(base, 'blobs')
  execFileSync('mkdir', [blobs])
  execFileSync(BUILDER, ['create', '--log-level', 'warn', '-B', bootstrap, '-D', blobs, corpus], { stdio: 'inherit' })
  const argv = (output: string) => ['export', '--block', '--bootstrap', bootstrap, '--localfs-dir', blobs, '--output', path.join(output, 'disk'), ...(process.env['VERITY'] ? ['--verity'] : [])]
  const contestants = [
    { name: 'ours', argv: (output: string) => [process.execPath, BUILDER, ...argv(output)] as const },
    // upstream keeps what it has decoded beside the blobs: without that it must decode, as ours does each time
    ...(peer === undefined ? [] : [{ name: 'upstream', argv: (output: string) => ['sh', '-c', 'rm -f "$1"/*.blob.*; shift; exec "$@"', 'sh', blobs, peer, ...argv(output)] as const }]),
  ]
  compete('export --block', contestants, { rounds: Number(process.env['ROUNDS'] ?? 3), sizeOf: (output) => statSync(path.join(output, 'disk')).size })
} finally {
  rmSync(base, { recursive: true, force: true })
}

// `nydus-image create` of a source tree of 80,000 files, zstd, against upstream's: alternating runs. Prints JSON: wall and CPU seconds, peak
// memory, size of blob and bootstrap, and the ratios.
//   [SOURCE=DIR/linux] [NYDUS_PEER_IMAGE=…/nydus-image] [ROUNDS=5] node bench/run.mjs build/create
// SOURCE is what bench/corpus.sh makes; without it a tree of the same shape is made up (its ratios are not those of real sources).

import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { compete, type Contestant } from './measure.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const FILES = 80_000

/** Directories of 40 files with numbered text, 16 KiB on average. */
function madeUpTree(): string {
  const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-tree-'))
  for (let i = 0; i < FILES; i++) {
    const directory = path.join(base, `d${i % 50}`, `sub${Math.floor(i / 40) % 40}`)
    mkdirSync(directory, { recursive: true })
    const line = `static int function_${i}(struct device *device, unsigned long flags) { return device->flags & 0x${(i * 2_654_435_761 % 2 ** 32).toString(16)}; }\n`
    writeFileSync(path.join(directory, `file${i}.c`), Array.from({ length: 1 + (i * 7919) % 240 }, (_, n) => `${n}: ${line}`).join(''))
  }
  return base
}

const given = process.env['SOURCE']
const source = given ?? madeUpTree()
const contestants: Contestant[] = [{ name: 'ours', argv: (out) => [process.execPath, path.join(ROOT, 'bin/nydus-image'), ...create(out)] }]
const peer = process.env['NYDUS_PEER_IMAGE']
if (peer !== undefined) contestants.push({ name: 'upstream', argv: (out) => [peer, ...create(out)] })

function create(output: string): string[] {
  return ['create', '--log-level', 'warn', '--bootstrap', path.join(output, 'image.boot'), '--blob-dir', output, source]
}

try {
  compete(`create ${given ?? 'made-up tree'}`, contestants, {
    rounds: Number(process.env['ROUNDS'] ?? 5),
    sizeOf: (output) => readdirSync(output).reduce((sum, name) => sum + statSync(path.join(output, name)).size, 0),
  })
} finally {
  if (given === undefined) rmSync(source, { recursive: true, force: true })
}

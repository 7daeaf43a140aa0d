// `nydus-image merge` against upstream's: layers that replace each other in part. Prints JSON: wall and CPU seconds, peak memory, and the ratios;
// and how our time grows from 70,000 to 400,000 files, without upstream, which takes minutes there.
//   [FILES=70000] [LAYERS=4] [NYDUS_PEER_IMAGE=…/nydus-image] [ROUNDS=3] node bench/run.mjs build/merge

import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { largeBootstrap } from '../../test/support/large-image.ts'
import { compete, type Contestant } from './measure.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const base = mkdtempSync(path.join(os.tmpdir(), 'nydus-bench-merge-'))

/** Bootstraps of layers; the first has 20,000 files in one directory, as real images have. */
function layersOf(files: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const share = Math.floor(files / count)
    const file = path.join(base, `${String(i).padStart(2, '0')}`.repeat(32))
    writeFileSync(file, largeBootstrap([Math.min(share, 20_000), ...Array.from({ length: Math.max(0, Math.ceil((share - 20_000) / 50)) }, () => 50), ...Array.from({ length: i }, () => 0)]))
    return file
  })
}

const sizeOf = (output: string) => statSync(path.join(output, 'image.boot')).size
const merge = (output: string, layers: readonly string[]) => ['merge', '--log-level', 'warn', '--bootstrap', path.join(output, 'image.boot'), ...layers]
const ours = (layers: readonly string[]): Contestant => ({ name: 'ours', argv: (out) => [process.execPath, path.join(ROOT, 'bin/nydus-image'), ...merge(out, layers)] })

try {
  const [files, count] = [Number(process.env['FILES'] ?? 70_000), Number(process.env['LAYERS'] ?? 4)]
  const rounds = Number(process.env['ROUNDS'] ?? 3)
  const layers = layersOf(files, count)
  const peer = process.env['NYDUS_PEER_IMAGE']
  compete(`merge ${count} layers, ${files} files`, [ours(layers), ...(peer === undefined ? [] : [{ name: 'upstream', argv: (out: string) => [peer, ...merge(out, layers)] as const }])], { rounds, sizeOf })
  for (const [many, deep] of [[140_000, 4], [400_000, 4], [400_000, 20]] as const) compete(`merge ${deep} layers, ${many} files`, [ours(layersOf(many, deep))], { rounds, sizeOf })
} finally {
  rmSync(base, { recursive: true, force: true })
}

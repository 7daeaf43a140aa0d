// `nydus-image stat`.

import { readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { CodedError, isCoded } from '../../core/errors.ts'
import { usageError } from '../command-line.ts'
import { loadBootstrap } from './load.ts'
import { Statistics, statisticsText } from './statistics.ts'

/** Text to stdout, or JSON (one line) to `--output-json`. With `--blob-dir` every bootstrap in the directory counts; other files are passed over. */
export async function stat(command: Command): Promise<void> {
  const options = command.opts<{ readonly bootstrap?: string; readonly blobDir?: string; readonly target?: string; readonly outputJson?: string }>()
  const statistics = new Statistics()
  if (options.blobDir !== undefined) await addDirectory(statistics, options.blobDir)
  else if (options.bootstrap !== undefined) statistics.addBase(await loadBootstrap(options.bootstrap))
  else usageError(command, 'one of --bootstrap <bootstrap> and --blob-dir <blob-dir> is required')
  if (options.target !== undefined) statistics.setTarget(await loadBootstrap(options.target))
  const report = statistics.report()
  if (options.outputJson === undefined) process.stdout.write(statisticsText(report))
  else writeFileSync(options.outputJson, JSON.stringify(report))
}

async function addDirectory(statistics: Statistics, directory: string): Promise<void> {
  let found = 0
  for (const name of readdirSync(directory).sort()) {
    try {
      statistics.addBase(await loadBootstrap(path.join(directory, name)))
      found++
    } catch (error) {
      // Data blobs without a bootstrap and other files lie beside the images.
      if (!isCoded(error)) throw error
    }
  }
  if (found === 0) throw new CodedError('BUILD_SOURCE', `no RAFS file system in ${directory}`, { directory })
}

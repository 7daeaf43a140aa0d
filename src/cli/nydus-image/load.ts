// Opens the bootstrap that a subcommand names: a bootstrap file, or a blob that carries one.

import type { Command } from 'commander'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { usageError } from '../command-line.ts'

/** The path given as a positional or by -B; exactly one of them, else a usage error. */
export function bootstrapArgument(command: Command, positional: string | undefined): string {
  const { bootstrap } = command.opts<{ readonly bootstrap?: string }>()
  if (positional !== undefined && bootstrap !== undefined) usageError(command, `the argument '--bootstrap <bootstrap>' cannot be used with '[BOOTSTRAP]'`)
  const given = positional ?? bootstrap
  if (given === undefined) usageError(command, 'the following required arguments were not provided:\n  <BOOTSTRAP>')
  return given
}

/** The metadata of an image; no blob is touched. RAFS_NOT_FOUND when there is no such file, FORMAT_* when it is no image. */
export async function loadBootstrap(file: string): Promise<BootstrapView> {
  const { view } = await openBootstrap(file, { signal: new AbortController().signal })
  return view // mapped until the process ends
}

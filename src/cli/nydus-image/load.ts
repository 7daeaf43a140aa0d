// Opens the bootstrap that a subcommand names: a bootstrap file, or a blob that carries one.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { CodedError } from '../../core/errors.ts'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { usageError } from '../command-line.ts'

/** The path given as a positional or by -B; exactly one of them, else a usage error. */
export function bootstrapArgument(command: Command, positional: string | undefined): string {
  const { bootstrap } = command.opts<{ readonly bootstrap?: string }>()
  if (positional !== undefined && bootstrap !== undefined) usageError(command, `the argument '--bootstrap <bootstrap>' cannot be used with '[BOOTSTRAP]'`)
  const given = positional ?? bootstrap
  if (given === undefined) usageError(command, 'the following required arguments were not provided:\n  <BOOTSTRAP>')
  return given
}

/** BUILD_SOURCE when the file cannot be read, FORMAT_* when it is no image. */
export async function loadBootstrap(file: string, _options: { readonly blobDir?: string } = {}): Promise<BootstrapView> {
  try {
    return BootstrapView.open(readFileSync(file), { blobIdFromName: path.basename(file).split('.')[0] })
  } catch (error) {
    if (error instanceof Error && 'syscall' in error) throw new CodedError('BUILD_SOURCE', `cannot read bootstrap ${file}: ${error.message}`, { file }, { cause: error })
    throw error
  }
}

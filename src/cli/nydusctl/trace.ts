// `nydusctl trace`: what a program reads first, as a list that the next start fetches ahead (`nydusd --prefetch-files`) or `nydus-image optimize` takes.

import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { CodedError } from '../../core/errors.ts'
import { traceLine } from '../../rafs/index.ts'
import { globalOption, usageCommand } from '../command-line.ts'
import type { Client } from './client.ts'

const TRACE = '/api/v1/trace'

interface Entry { readonly path: string; readonly offset: number; readonly length: number; readonly ms: number }

/** `trace start` and `trace stop`. */
export function traceCommand(clientOf: (command: Command) => Client): Command {
  const group = usageCommand('trace').description('Record what is read of a mount, in order: for --prefetch-files and optimize')
  const withId = (command: Command): Command => command.option('--id <mountpoint>', 'Which mount, if there are several')
  group.addCommand(withId(usageCommand('start')).description('Begin a trace; what the kernel has in its page cache is not read again and not seen')
    .action(async (options: { id?: string }, command: Command) => {
      await clientOf(command).ask('PUT', urlOf(options))
    }))
  group.addCommand(withId(usageCommand('stop')).description('End it, and print it or write it to a file')
    .option('-o, --output <file>', 'Where to write it; default standard output')
    .option('--paths', 'Paths alone, each once')
    .action(async (options: { id?: string; output?: string; paths?: true }, command: Command) => {
      const { body, text } = await clientOf(command).ask('DELETE', urlOf(options))
      const list = globalOption(command, 'raw') === true ? `${text}\n` : listOf(body, options)
      if (options.output === undefined) process.stdout.write(list)
      else write(options.output, list)
    }))
  return group
}

function urlOf({ id }: { readonly id?: string }): string {
  return id === undefined ? TRACE : `${TRACE}?id=${encodeURIComponent(id)}`
}

/** SPEC: rafs/prefetch-list.ts; a line without a slash at its beginning is a remark. */
function listOf(body: unknown, { paths }: { readonly paths?: true }): string {
  // SAFETY: the daemon's own document (serve/api/accesses.ts).
  const { mountpoint, started_at, lost, entries } = body as { mountpoint: string; started_at: string; lost: number; entries: readonly Entry[] }
  const lines = paths ? [...new Set(entries.map(({ path }) => path))] : entries.map(traceLine)
  const remark = `# trace of ${mountpoint} since ${started_at}: path, offset, length, milliseconds${lost > 0 ? `; ${lost} reads came too fast and are missing` : ''}`
  return [...(paths ? [] : [remark]), ...lines, ''].join('\n')
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text)
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `cannot write ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

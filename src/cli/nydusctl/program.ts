// The `nydusctl` command line. SPEC: spec-surface.md F.3. Each subcommand's file is loaded when it runs.

import type { Command } from 'commander'
import { EXIT, runProgram, usageCommand } from '../command-line.ts'
import { Interrupted } from '../signals.ts'
import { versionBlock } from '../version.ts'
import { daemonCommands, withGlobalOptions } from './daemon-commands.ts'

/** Runs `nydusctl` with `argv` (without node and script); resolves with the exit code: 1 failure or damage found, 2 usage. */
export async function nydusctl(argv: readonly string[]): Promise<number> {
  let code: number = EXIT.ok
  const program = withGlobalOptions(usageCommand('nydusctl'))
    .description('A client to query and configure nydusd, and to look after its cache directories')
    .version(versionBlock(), '-V, --version', 'Print version')
    .addHelpText('after', `
Examples:
  nydusctl --sock /run/nydusd.sock info
  nydusctl --sock /run/nydusd.sock top
  nydusctl --sock /run/nydusd.sock metrics fsstats --interval 1
  nydusctl --sock /run/nydusd.sock mount -s image.boot -c config.json -m /app -t rafs
  nydusctl --sock /run/nydusd.sock set log-level debug
  nydusctl cache ls --dir /var/cache/nydus`)
  for (const command of daemonCommands()) program.addCommand(command)
  program.addCommand(cacheCommands((result) => { code = result }))
  const outcome = await runProgram(program, argv.length === 0 ? ['--help'] : argv, (error) => (error instanceof Interrupted ? error.exitCode : EXIT.failed))
  return outcome === EXIT.ok ? code : outcome
}

/** Our addition: needs no daemon, the directory says everything. */
function cacheCommands(conclude: (code: number) => void): Command {
  const group = usageCommand('cache').description('Look after a cache directory: what is in it, what is damaged, what nobody uses')
  const command = (name: string, description: string) => usageCommand(name).description(description)
    .requiredOption('-D, --dir <dir>', 'The cache directory: `work_dir` in the configuration of nydusd').option('--json', 'Print JSON instead of a table')
  group.addCommand(command('ls', 'List the cached blobs: size, completeness, last use, who uses them and what for')
    .action(async (options: { dir: string; json?: true }) => (await import('./cache.ts')).listCache(options)))
  group.addCommand(command('gc', 'Remove the files of blobs that no mount uses')
    .option('--keep <bytes>', 'Leave so many bytes: only the longest unused blobs are removed', '0')
    .option('--dry-run', 'Say what would be removed')
    .action(async (options: { dir: string; json?: true; keep: string; dryRun?: true }) => (await import('./cache.ts')).collectGarbage(options)))
  group.addCommand(command('verify', 'Compare every cached chunk with its digest; exit code 1 when something is damaged')
    .option('-B, --bootstrap <bootstrap...>', 'Bootstraps that know the digests; without, those that the blobs were stored for')
    .option('--repair', 'Forget damaged chunks: they are fetched again')
    .action(async (options: { dir: string; json?: true; bootstrap?: string[]; repair?: true }) => conclude(await (await import('./verify-cache.ts')).verifyCache(options))))
  return group
}

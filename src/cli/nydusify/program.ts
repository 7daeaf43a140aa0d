// The `nydusify` command line. SPEC: spec-surface.md C. Commands' own files are loaded when they run, so that --version and --help start quickly.

import { buildInfo } from '../version.ts'
import { checkCommand } from './check-command.ts'
import { convertCommand } from './convert-command.ts'
import { type Command, commandHelp, type Flag, flagLines, HELP_FLAG, isUsageError, parseFlags, usageError } from './flags.ts'
import { laterCommands } from './later-commands.ts'
import { mountCommand } from './mount-command.ts'
import { catCommand, listCommand, serveCommand } from './our-commands.ts'

const GLOBAL_FLAGS: readonly Flag[] = [
  { name: 'debug', aliases: ['D'], kind: 'switch', env: ['DEBUG_LOG_LEVEL'], usage: 'Enable debug log level, overwrites the --log-level option' },
  { name: 'log-level', aliases: ['l'], kind: 'string', value: 'info', env: ['LOG_LEVEL'], usage: 'Set log level (panic, fatal, error, warn, info, debug, trace)' },
  { name: 'log-file', kind: 'string', env: ['LOG_FILE'], usage: 'Write logs to a file' },
]

const COMMANDS: readonly Command[] = [convertCommand, checkCommand, mountCommand, serveCommand, listCommand, catCommand, ...laterCommands]

/** Runs `nydusify` with `argv` (without node and script); resolves with the exit code. COMPAT: every failure of upstream is exit 1, usage too. */
export async function nydusify(argv: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  let command: Command | undefined
  try {
    const { values: globals, asked } = parseFlags(GLOBAL_FLAGS, argv, { env, more: false })
    if (asked === 'version') return print(versionText())
    const [name, ...rest] = globals.positionals
    if (name === undefined || name === 'help' || name === 'h') return print(helpFor(rest[0]))
    command = find(name)
    if (command === undefined) throw usageError(`No help topic for '${name}'`)
    if (asked === 'help') return print(commandHelp('nydusify', command))
    const { values, asked: more } = parseFlags([...command.flags, ...GLOBAL_FLAGS], command.anyFlags === true ? rest.filter((word) => word === '--help' || word === '-h') : rest, { env, more: true })
    if (more !== undefined) return print(commandHelp('nydusify', command))
    const { startLogging } = await import('./log.ts')
    const setting = (flag: string) => (globals.isSet(flag) ? globals : values)
    startLogging({ level: setting('debug').isOn('debug') ? 'debug' : setting('log-level').text('log-level'), file: setting('log-file').optional('log-file') })
    return await command.run(values)
  } catch (error) {
    if (isUsageError(error) && error instanceof Error) {
      process.stderr.write(`Incorrect Usage: ${error.message}\n\n${command === undefined ? programHelp() : `nydusify ${command.name} --help shows all options\n`}`)
      return 1
    }
    const { reportFailure } = await import('./failure.ts')
    return reportFailure(error)
  }
}

function find(name: string): Command | undefined {
  return COMMANDS.find((command) => command.name === name || command.aliases?.includes(name))
}

function helpFor(name: string | undefined): string {
  const command = name === undefined ? undefined : find(name)
  return command === undefined ? programHelp() : commandHelp('nydusify', command)
}

function programHelp(): string {
  const names = COMMANDS.map(({ name, aliases = [] }) => [name, ...aliases].join(', '))
  const width = Math.max(...names.map((text) => text.length)) + 2
  return [
    'NAME:', '   Nydusify - Nydus utility tool to build, convert, verify and view container images', '',
    'USAGE:', '   nydusify [global options] command [command options] [arguments...]', '',
    'COMMANDS:', ...COMMANDS.map(({ usage }, at) => `   ${names[at]!.padEnd(width)}${usage}`), `   ${'help, h'.padEnd(width)}Shows a list of commands or help for one command`, '',
    'GLOBAL OPTIONS:', ...flagLines([...GLOBAL_FLAGS, HELP_FLAG, { name: 'version', aliases: ['v'], kind: 'switch', usage: 'print the version' }]), '',
    'EXAMPLES:',
    '   nydusify convert --source docker.io/library/node:22 --target localhost:5000/node:nydus --plain-http',
    '   nydusify check --source docker.io/library/node:22 --target localhost:5000/node:nydus --target-insecure',
    '   nydusify mount --target localhost:5000/node:nydus --target-insecure --mount-path /mnt/node',
    '   nydusify help convert', '',
  ].join('\n')
}

function versionText(): string {
  const { version, gitCommit, buildTime } = buildInfo()
  return ['Nydusify version ', `Version\t: ${version}`, `Revision\t: ${gitCommit}`, `Runtime\t: Node.js ${process.version}`, `Build time\t: ${buildTime}`, ''].join('\n')
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

// What nydus-image and nydusd share of their command lines: upstream's conventions (clap) on top of commander.
// COMPAT: usage errors go to stderr with exit 2, help and version to stdout with exit 0, global options stand before or after the subcommand.

import { Command, CommanderError, Option } from 'commander'
import { CodedError } from '../core/errors.ts'
import { EXIT, explain, LOG_LEVELS } from './conventions.ts'

export { EXIT, explain, LOG_LEVELS, type LogLevel } from './conventions.ts'

/** A command that throws CommanderError instead of ending the process; `runProgram` turns that into an exit code. */
export function usageCommand(name: string): Command {
  return new Command(name).exitOverride().showHelpAfterError(`For more information, try '--help'.`).helpOption('-h, --help', 'Print help').helpCommand(false)
}

/** `-L/--log-file` and `-l/--log-level`, accepted before or after the subcommand. */
export function withLogOptions(command: Command): Command {
  return command
    .option('-L, --log-file <log-file>', 'Log file path')
    .addOption(new Option('-l, --log-level <log-level>', 'Log level').choices(LOG_LEVELS).default('info'))
}

/** The value given on the command line, wherever it stood: an explicit one on the program wins over a subcommand's default. */
export function globalOption(command: Command, name: string): unknown {
  for (let at: Command | null = command; at; at = at.parent) {
    if (at.getOptionValueSource(name) === 'cli') return at.getOptionValue(name)
  }
  return command.getOptionValue(name)
}

/** A usage error in upstream's words; prints usage and exits 2. */
export function usageError(command: Command, message: string): never {
  command.error(`error: ${message}`, { exitCode: EXIT.usage })
}

/** Refuses two options together. COMPAT: upstream's smoke tests look for this sentence. `describe` gives e.g. `--blob-dir <blob-dir>`. */
export function refuseTogether(command: Command, first: string, second: string): void {
  const [a, b] = [first, second].map((name) => command.options.find((option) => option.attributeName() === name))
  if (!a || !b) throw new Error(`no such option: ${first} or ${second}`)
  if (command.getOptionValueSource(first) !== 'cli' || command.getOptionValueSource(second) !== 'cli') return
  usageError(command, `the argument '${describe(a)}' cannot be used with '${describe(b)}'`)
}

function describe(option: Option): string {
  return option.long + (option.required ? ` <${option.name()}>` : '')
}

/** Decimal or 0x-hexadecimal, as upstream's size options. BUILD_INVALID_OPTION otherwise. */
export function parseSize(text: string, option: string): number {
  const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw new CodedError('BUILD_INVALID_OPTION', `--${option}: want a decimal or 0x-hexadecimal number of bytes, got '${text}'`, { option })
  return value
}

/** Parses and runs; resolves with the exit code. Failures are printed to stderr as `Error: ...` with their causes. */
export async function runProgram(program: Command, argv: readonly string[], exitCodeOf: (error: unknown) => number = () => EXIT.failed): Promise<number> {
  try {
    await program.parseAsync(argv, { from: 'user' })
    return EXIT.ok
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    process.stderr.write(`${explain(error)}\n`)
    return exitCodeOf(error)
  }
}

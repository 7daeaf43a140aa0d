// The commands of nydusctl that talk to the API of a running nydusd. SPEC: spec-surface.md F.3.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, Option } from 'commander'
import { CodedError } from '../../core/errors.ts'
import { globalOption, usageCommand, usageError } from '../command-line.ts'
import { LOG_LEVELS } from '../conventions.ts'
import { Interrupted, untilSignal } from '../signals.ts'
import { Client } from './client.ts'
import { showInfo } from './info.ts'
import { asMetrics, type Category, difference, METRICS_PATH, type Metrics, show } from './metrics.ts'
import { Top } from './top.ts'
import { traceCommand } from './trace.ts'

/** The commands that talk to a daemon. */
export function daemonCommands(): Command[] {
  return [info(), set(), metrics(), top(), mount(), umount(), traceCommand(clientOf)].map(withGlobalOptions)
}

/** `--sock` and `--raw`, accepted before or after the subcommand. */
export function withGlobalOptions(command: Command): Command {
  return command
    .option('-S, --sock <sock>', 'Path of the nydusd API socket')
    .option('-r, --raw', 'Print the JSON of the API, one document a line')
}

function withInterval(command: Command): Command {
  return command
    .option('-I, --interval <seconds>', 'Refresh every so many seconds; counters are then what was counted in that time')
    .option('--count <count>', 'End after so many refreshes')
}

/** The daemon that `command` talks to. */
function clientOf(command: Command): Client {
  const socket = globalOption(command, 'sock')
  if (typeof socket !== 'string') usageError(command, 'the following required arguments were not provided:\n  --sock <sock>')
  return new Client(socket)
}

/** Whether JSON is wanted. */
function isRaw(command: Command): boolean {
  return globalOption(command, 'raw') === true
}

function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
}

function info(): Command {
  return withInterval(usageCommand('info')).description('Version, state and mounts of the daemon').action(async (_options, command: Command) => {
    await repeat(command, async () => {
      const { body, text } = await clientOf(command).ask('GET', '/api/v1/daemon')
      print(isRaw(command) ? text : showInfo(asMetrics(body)))
    })
  })
}

function set(): Command {
  return usageCommand('set').description('Set a parameter of the daemon: log-level (trace, debug, info, warn, error)')
    .argument('<KIND>', 'log-level').argument('<VALUE>', 'its new value')
    .action(async (kind: string, value: string, _options, command: Command) => {
      if (kind !== 'log-level') usageError(command, `invalid value '${kind}' for '<KIND>'\n  [possible values: log-level]`)
      if (!LOG_LEVELS.some((level) => level === value)) usageError(command, `invalid value '${value}' for '<VALUE>'\n  [possible values: ${LOG_LEVELS.join(', ')}]`)
      await clientOf(command).ask('PUT', '/api/v1/daemon', { log_level: value })
    })
}

function metrics(): Command {
  return withInterval(usageCommand('metrics')).description('Metrics of a backend, a cache or a file system')
    .argument('<category>', 'backend, cache or fsstats')
    .option('--id <id>', 'Which one, if there are several: the mountpoint, for cache the id of the configuration')
    .action(async (category: string, { id }: { id?: string }, command: Command) => {
      if (!isCategory(category)) usageError(command, `invalid value '${category}' for '<category>'\n  [possible values: backend, cache, fsstats]`)
      const url = METRICS_PATH[category] + (id === undefined ? '' : `?id=${encodeURIComponent(id)}`)
      let before: { readonly metrics: Metrics; readonly at: number } | undefined
      await repeat(command, async () => {
        const { body, text } = await clientOf(command).ask('GET', url)
        const now = { metrics: asMetrics(body), at: performance.now() }
        if (isRaw(command)) print(text)
        else if (before) print(`\n${show(category, difference(before.metrics, now.metrics), (now.at - before.at) / 1000)}`)
        else print(show(category, now.metrics))
        before = now
      })
    })
}

function top(): Command {
  return withInterval(usageCommand('top')).description('Live rates, hit ratio, reads under way and slow reads of each mount')
    .action(async (_options, command: Command) => {
      const view = new Top()
      await repeat(command, async () => {
        const { body, text } = await clientOf(command).ask('GET', '/api/v2/metrics')
        const shown = view.refresh(body, performance.now())
        if (isRaw(command)) print(text)
        else if (shown !== undefined) print(process.stdout.isTTY ? `\x1b[H\x1b[2J${shown}` : `${shown}\n`)
      }, 1)
    })
}

function mount(): Command {
  return usageCommand('mount').description('Mount a file system in the daemon')
    .option('-s, --source <source>', 'Bootstrap of the image (or the directory, for passthrough)')
    .option('-c, --config <config>', 'Configuration file of the image')
    .option('-m, --mountpoint <mountpoint>', 'Where, inside the daemon\'s mount')
    .addOption(new Option('-t, --type <type>', 'Type of the file system').choices(['rafs', 'passthrough_fs']))
    .option('--remount', 'Replace what is mounted there')
    .action(async ({ source, config, mountpoint, type, remount }: Partial<Record<'source' | 'config' | 'mountpoint' | 'type', string>> & { remount?: true }, command: Command) => {
      const missing = Object.entries({ source, config, mountpoint, type }).filter(([, value]) => value === undefined).map(([name]) => `  --${name} <${name}>`)
      if (missing.length > 0 || mountpoint === undefined || config === undefined) usageError(command, `the following required arguments were not provided:\n${missing.join('\n')}`)
      await clientOf(command).ask(remount ? 'PUT' : 'POST', `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint)}`, { source, fs_type: type, config: readConfig(config) })
    })
}

function umount(): Command {
  return usageCommand('umount').description('Unmount a file system of the daemon')
    .option('-m, --mountpoint <mountpoint>', 'Which one')
    .action(async ({ mountpoint }: { mountpoint?: string }, command: Command) => {
      if (mountpoint === undefined) usageError(command, 'the following required arguments were not provided:\n  -m <mountpoint>')
      await clientOf(command).ask('DELETE', `/api/v1/mount?mountpoint=${encodeURIComponent(mountpoint)}`)
    })
}

function readConfig(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `cannot read ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

function isCategory(text: string): text is Category {
  return Object.hasOwn(METRICS_PATH, text)
}

/** Once, or every `--interval` seconds until a signal, at most `--count` times. */
async function repeat(command: Command, action: () => Promise<void>, fallback?: number): Promise<void> {
  const { interval = fallback, count } = command.opts<{ interval?: string; count?: string }>()
  const seconds = interval === undefined ? undefined : Number(interval)
  const rounds = count === undefined ? Number.POSITIVE_INFINITY : Number(count)
  if (seconds !== undefined && !(seconds > 0)) usageError(command, `invalid value '${interval}' for '--interval <seconds>'`)
  if (!(rounds >= 1)) usageError(command, `invalid value '${count}' for '--count <count>'`)
  await action()
  if (seconds === undefined) return
  try {
    await untilSignal(async (signal) => {
      for (let round = 1; round < rounds; round++) {
        await sleep(seconds * 1000, undefined, { signal })
        await action()
      }
    })
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error // the way to end it
  }
}

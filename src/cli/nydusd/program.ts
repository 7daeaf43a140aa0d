// nydusd: parses, opens the image, mounts, serves, ends. What is not needed before the mount is loaded after it.

import { CodedError } from '../../core/errors.ts'
import { OWNER_VARIABLE } from '../../core/owner.ts'
import { ApiServer, type DaemonEnd } from '../../serve/index.ts'
import { EXIT, explain } from '../conventions.ts'
import { versionBlock } from '../version.ts'
import { helpText, parseArguments, USAGE } from './options.ts'
import { takePullAuth } from './pull-auth.ts'
import { type Host, type Order, serve, type Values } from './service.ts'

/** LIMIT: connections that are being closed may take this long. */
const EXIT_GRACE_MS = 1000

/** What a command line is, unless it serves: what to print, and the exit code. */
export type Printed = { readonly code: number; readonly out?: string; readonly error?: string }

/** Runs to the end of the daemon; resolves with the exit code. */
export async function nydusd(argv: readonly string[]): Promise<number> {
  const command = interpret(argv)
  if ('code' in command) {
    if (command.out !== undefined) process.stdout.write(command.out)
    if (command.error !== undefined) process.stderr.write(command.error)
    return command.code
  }
  try {
    if (command.values.has('self-heal') || command.values.has('server')) throw new CodedError('CONFIG_INVALID', '--self-heal and --server need the launcher: run bin/nydusd itself, not `node bin/nydusd`')
    const { end, log } = await serve(command, await ownProcess(command.values))
    if (end.stuck) {
      log.write('error', 'a worker hangs in a system call: ending the process the hard way')
      process.kill(process.pid, 'SIGKILL') // process.exit would wait for that thread for ever
    }
    const code = codeOf(end)
    // everything is closed: whatever keeps the event loop alive now is a bug, and no reason to stay
    setTimeout(() => process.exit(code), EXIT_GRACE_MS).unref()
    return code
  } catch (error) {
    process.stderr.write(`${explain(error)}\n`)
    return EXIT.failed
  }
}

/** The values of a command line that serves, or what it prints. */
export function interpret(argv: readonly string[]): Order | Printed {
  const command = parseArguments(argv)
  switch (command.kind) {
    case 'help': return { code: EXIT.ok, out: helpText() }
    case 'version': return { code: EXIT.ok, out: `${versionBlock()}\n` }
    case 'usage': return { code: EXIT.usage, error: `error: ${command.message}\n\n${USAGE}\n\nFor more information, try '--help'.\n` }
    case 'later': return { code: EXIT.failed, error: `Error: '${command.name}' is not in this version of nydusd; it serves through FUSE ('nydusd fuse --help')\n` }
    default: return command
  }
}

/** The exit code of a daemon that ended so. */
export function codeOf({ error }: DaemonEnd): number {
  return error ? EXIT.failed : EXIT.ok
}

async function ownProcess(values: Values): Promise<Host> {
  const owner = process.env[OWNER_VARIABLE]
  delete process.env[OWNER_VARIABLE] // it is of no concern to our children
  const watch = owner === undefined ? undefined : (await import('./owner.ts')).watchOwner
  return {
    imagePullAuth: takePullAuth(),
    listen: async (daemon, options) => await ApiServer.listen(daemon, options),
    listenForOrders({ stop, reopen }) {
      process.on('SIGTERM', stop)
      process.on('SIGINT', stop)
      process.on('SIGHUP', values.has('log-file') ? reopen : stop)
      if (owner !== undefined) watch?.(owner, stop)
    },
  }
}

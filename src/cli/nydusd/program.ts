// nydusd: parses, opens the image, mounts, serves, ends. What is not needed before the mount is loaded after it.

import { existsSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { OWNER_VARIABLE } from '../../core/owner.ts'
import { machineLimits } from '../../native/machine.ts'
import { ApiServer, Daemon, type DaemonEnd, type FailoverPolicy, mountedDevice } from '../../serve/index.ts'
import { EXIT, explain, type LogLevel } from '../conventions.ts'
import { buildInfo, versionBlock } from '../version.ts'
import { raiseFileLimit } from './limits.ts'
import { Log } from './logging.ts'
import { helpText, type OptionName, parseArguments, USAGE } from './options.ts'

/** LIMIT: connections that are being closed may take this long. */
const EXIT_GRACE_MS = 1000

type Values = ReadonlyMap<OptionName, string>

/** Runs to the end of the daemon; resolves with the exit code. */
export async function nydusd(argv: readonly string[]): Promise<number> {
  const command = parseArguments(argv)
  switch (command.kind) {
    case 'help':
      process.stdout.write(helpText())
      return EXIT.ok
    case 'version':
      process.stdout.write(`${versionBlock()}\n`)
      return EXIT.ok
    case 'usage':
      process.stderr.write(`error: ${command.message}\n\n${USAGE}\n\nFor more information, try '--help'.\n`)
      return EXIT.usage
    case 'later':
      process.stderr.write(`Error: '${command.name}' is not in this version of nydusd; it serves through FUSE ('nydusd fuse --help')\n`)
      return EXIT.failed
    case 'fuse':
      try {
        return await serveFuse(command.values)
      } catch (error) {
        process.stderr.write(`${explain(error)}\n`)
        return EXIT.failed
      }
  }
}

async function serveFuse(values: Values): Promise<number> {
  refuseLaterOptions(values)
  // SAFETY: parseArguments admits the names of LOG_LEVELS only.
  const log = new Log({ level: values.get('log-level') as LogLevel, file: values.get('log-file'), rotationMiB: Number(values.get('log-rotation-size')) })
  const stop = new AbortController()
  const daemon = new Daemon({
    id: values.get('id') ?? '', supervisor: values.get('supervisor'), mountpoint: values.get('mountpoint')!,
    threads: Math.min(Number(values.get('fuse-threads')), machineLimits().processors), writable: values.has('writable'),
    openMount: async (request, options) => await (await import('./image.ts')).openMount(request, options),
    // SAFETY: parseArguments admits the three policies only.
    failoverPolicy: values.get('failover-policy') as FailoverPolicy,
  })
  const end = (): void => {
    stop.abort()
    void daemon.stop({ unmount: true })
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
  const owner = process.env[OWNER_VARIABLE]
  delete process.env[OWNER_VARIABLE] // it is of no concern to our children
  if (owner !== undefined) (await import('./owner.ts')).watchOwner(owner, end)
  let api: ApiServer | undefined
  try {
    if (!(await startsInInit(values))) {
      const { openFirstMount } = await import('./image.ts') // loaded while the first worker starts
      daemon.mount(await openFirstMount(values, { signal: stop.signal }))
    }
    api = await listen(daemon, log, values.get('apisock'))
  } catch (error) {
    const interrupted = stop.signal.aborted
    await daemon.stop({ unmount: true })
    if (!interrupted) {
      if (log.file !== undefined) log.write('error', explain(error)) // stderr hears of it from the caller
      throw error
    }
  }
  await raiseFileLimit(Number(values.get('rlimit-nofile')), (message) => log.write('warn', message))
  const result = await daemon.done
  api?.close()
  const code = conclude(result, log)
  // everything is closed: whatever keeps the event loop alive now is a bug, and no reason to stay
  setTimeout(() => process.exit(code), EXIT_GRACE_MS).unref()
  return code
}

function conclude({ error, stuck }: DaemonEnd, log: Log): number {
  if (error) log.write('error', explain(error))
  if (stuck) {
    log.write('error', 'a worker hangs in a system call: ending the process the hard way')
    process.kill(process.pid, 'SIGKILL') // process.exit would wait for that thread for ever
  }
  return error ? EXIT.failed : EXIT.ok
}

function refuseLaterOptions(values: Values): void {
  if (values.has('shared-dir')) throw new CodedError('CONFIG_INVALID', '--shared-dir (passing a directory through) is not in this version of nydusd')
  if (values.get('virtual-mountpoint') !== '/') throw new CodedError('CONFIG_INVALID', '--virtual-mountpoint other than / is not in this version of nydusd')
}

async function listen(daemon: Daemon, log: Log, socket: string | undefined): Promise<ApiServer | undefined> {
  if (socket === undefined) return undefined
  const { version, gitCommit, buildTime } = buildInfo()
  return await ApiServer.listen(daemon, {
    socket,
    version: { package_ver: version, git_commit: gitCommit, build_time: buildTime, profile: 'release', rustc: `Node.js ${process.version}` },
    setLogLevel: (level) => log.setLevel(level),
  })
}

/**
 * Whether somebody is to hand a connection over: asked for by --upgrade, or, under a supervisor that keeps it, after a crash (still mounted,
 * nobody behind the API socket). COMPAT: upstream applies the crash rule without a supervisor too, and then serves nothing; here such a
 * dead mount is replaced.
 */
async function startsInInit(values: Values): Promise<boolean> {
  if (values.has('upgrade')) return true
  const socket = values.get('apisock')
  if (!values.has('supervisor') || socket === undefined || !existsSync(socket)) return false
  return mountedDevice(path.resolve(values.get('mountpoint')!)) !== undefined && !(await answers(socket))
}

async function answers(socket: string): Promise<boolean> {
  const { connect } = await import('node:net')
  return await new Promise((resolve) => {
    const connection = connect(socket)
    const finish = (answer: boolean): void => {
      connection.destroy()
      resolve(answer)
    }
    connection.once('connect', () => finish(true))
    connection.once('error', () => finish(false))
  })
}

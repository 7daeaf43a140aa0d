// One daemon from its options to its end, whoever hosts it: a process of its own, or a holder that lends its mount to this one.

import { existsSync } from 'node:fs'
import path from 'node:path'
import { machineLimits } from '../../native/machine.ts'
import { type ApiDaemon, type ApiOptions, type ApiServer, Daemon, type DaemonEnd, decodeState, ErrorEvents, type FailoverPolicy, type DeviceThreads, type GuestHolder, mountedDevice, StateSecrets, type WorkerPool } from '../../serve/index.ts'
import { explain, type LogLevel } from '../conventions.ts'
import { buildInfo } from '../version.ts'
import { raiseFileLimit } from './limits.ts'
import { Log } from './logging.ts'
import type { OptionName } from './options.ts'

/** LIMIT: so many threads may serve whatever the number of processors: one works, the others wait for the disk. */
const MIN_THREADS = 4

export type Values = ReadonlyMap<OptionName, string>

/** State and descriptors that pass from one server to the next. */
export interface HeldState { readonly bytes: Uint8Array; readonly fds: readonly number[] }

/** What a daemon needs of the process around it. */
export interface Host {
  /** What a server before this one has left; the daemon owns its descriptors. */
  readonly kept?: HeldState
  /** Hears what the next server would need. The descriptors stay the daemon's. */
  keep?(kept: HeldState & { readonly mountpoint: string; readonly device: string }): void
  /** Keeps the connection of a virtual machine's monitor. */
  readonly guest?: GuestHolder
  /** A worker is broken. */
  failed?(error: Error): void
  /** Workers of a process that serves several daemons. Events and limits are that process's then. */
  readonly pool?: WorkerPool
  /** Threads for devices of virtual machines, in the same case. */
  deviceThreads?(): Promise<DeviceThreads>
  /** IMAGE_PULL_AUTH. */
  readonly imagePullAuth: string | undefined
  /** Makes the API reachable at the path of `options`. @throws CONFIG_INVALID */
  listen(daemon: ApiDaemon, options: ApiOptions): Promise<ApiServer>
  /** Calls `stop` when the daemon is to unmount and end, `abandon` when it is to end alone, `reopen` when its log file has been renamed. */
  listenForOrders(orders: { stop(): void; abandon(): void; reopen(): void }): void
}

/** What a command line asks for. */
export interface Order { readonly kind: 'fuse' | 'virtiofs' | 'uffd'; readonly values: Values }

/** Runs a daemon to its end. Rejects with what has kept it from starting, then nothing is mounted. */
export async function serve({ kind, values }: Order, host: Host): Promise<{ readonly end: DaemonEnd; readonly log: Log }> {
  // SAFETY: parseArguments admits the names of LOG_LEVELS only.
  const log = new Log({ level: values.get('log-level') as LogLevel, file: values.get('log-file'), rotationMiB: Number(values.get('log-rotation-size')), events: host.pool === undefined })
  const stop = new AbortController()
  const { daemon, begin } = await serviceOf(kind, values, host)
  host.listenForOrders({
    stop() {
      stop.abort()
      void daemon.stop({ unmount: true })
    },
    abandon: () => void daemon.stop({ unmount: false }),
    reopen: () => log.reopen(),
  })
  let api: ApiServer | undefined
  try {
    await begin(stop.signal)
    api = await listen(daemon, log, values, host)
  } catch (error) {
    const interrupted = stop.signal.aborted
    await daemon.stop({ unmount: host.kept === undefined })
    if (!interrupted) {
      if (log.file !== undefined) log.write('error', explain(error)) // stderr hears of it from the caller
      throw error
    }
  }
  if (!host.pool) await raiseFileLimit(Number(values.get('rlimit-nofile')), (message) => log.write('warn', message))
  const end = await daemon.done
  api?.close()
  if (end.error) log.write('error', explain(end.error))
  return { end, log }
}

/** A daemon of any transport, and what makes it RUNNING. */
export interface Service {
  readonly daemon: ApiDaemon & Pick<Daemon, 'stop' | 'done'>
  begin(signal: AbortSignal): Promise<void>
}

async function serviceOf(kind: Order['kind'], values: Values, host: Host): Promise<Service> {
  switch (kind) {
    case 'fuse': return fuseService(values, host)
    case 'virtiofs': return (await import('./virtiofs.ts')).virtiofsService(values, host, () => startsInInit(values, () => existsSync(values.get('sock')!)))
    case 'uffd': return (await import('./uffd.ts')).uffdService(values, host)
  }
}

function fuseService(values: Values, host: Host): Service {
  const { imagePullAuth } = host
  const secrets = new StateSecrets(values.get('run-dir')!)
  const continued = host.keep || values.has('supervisor') ? values.get('mountpoint') : undefined
  const daemon = new Daemon({
    id: values.get('id') ?? '', supervisor: values.get('supervisor'), mountpoint: values.get('mountpoint')!,
    threads: Math.min(Number(values.get('fuse-threads')), Math.max(MIN_THREADS, machineLimits().processors)), writable: values.has('writable'),
    openMount: async (request, options) => await (await import('./image.ts')).openMount(request, { ...options, imagePullAuth, continued, values }),
    openErofs: async (request, options) => await (await import('./erofs.ts')).openErofs(request, { ...options, imagePullAuth }),
    runDirectory: values.get('run-dir')!, secrets,
    // SAFETY: parseArguments admits the three policies only.
    failoverPolicy: values.get('failover-policy') as FailoverPolicy,
    ...(host.keep && { keep: ({ fd, ...kept }) => host.keep?.({ ...kept, fds: [fd] }) }),
    ...(host.failed && { failed: (error) => host.failed?.(error) }),
    ...(host.pool && { pool: host.pool }),
  })
  return {
    daemon,
    async begin(signal) {
      if (host.kept) {
        await daemon.restore(decodeState(host.kept.bytes, secrets), host.kept.fds[0]!)
        daemon.start()
      } else if (values.has('fill')) {
        await (await import('./erofs.ts')).startErofs(daemon, values, { signal, imagePullAuth })
      } else if (!(await startsInInit(values, () => mountedDevice(path.resolve(values.get('mountpoint')!)) !== undefined))) {
        const { openFirstMount } = await import('./image.ts') // loaded while the first worker starts
        daemon.mount(await openFirstMount(values, { signal, imagePullAuth, continued }))
      } else {
        void import('./image.ts') // while somebody asks for the takeover
      }
    },
  }
}

async function listen(daemon: ApiDaemon, log: Log, values: Values, host: Host): Promise<ApiServer | undefined> {
  const socket = values.get('apisock')
  if (socket === undefined) return undefined
  const { version, gitCommit, buildTime } = buildInfo()
  return await host.listen(daemon, {
    socket,
    version: { package_ver: version, git_commit: gitCommit, build_time: buildTime, profile: 'release', rustc: `Node.js ${process.version}` },
    events: new ErrorEvents(),
    setLogLevel: (level) => log.setLevel(level),
  })
}

/**
 * Whether somebody is to hand a connection over: asked for by --upgrade, or, under a supervisor that keeps it, after a crash (`isThere`: still mounted, or its
 * socket; nobody behind the API socket). COMPAT: upstream applies the crash rule without a supervisor too, and then serves nothing; here such a
 * dead mount is replaced.
 */
async function startsInInit(values: Values, isThere: () => boolean): Promise<boolean> {
  if (values.has('upgrade')) return true
  const socket = values.get('apisock')
  if (!values.has('supervisor') || socket === undefined || !existsSync(socket)) return false
  return isThere() && !(await answers(socket))
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

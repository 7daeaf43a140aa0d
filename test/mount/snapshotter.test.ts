// The containerd nydus-snapshotter's manager, replayed: its argv, its requests in their order, its supervisor and its liveness connection.
// SPEC: spec-surface.md B.5 "Call sequences", B.6, B.7 (recorded from pkg/manager, pkg/daemon and pkg/supervisor of the snapshotter and upstream's smoke tests).

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { eventually, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { Supervisor } from '../support/supervisor.ts'

const CASE = 'v6-small-zstd'
const SOURCE = path.join(VECTORS, CASE, 'image.boot')
const FILE = expectOfCase(CASE)!.find(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name))!

type Kind = 'dedicated' | 'shared'

/** pkg/daemon/command: the order of the struct's fields, empty ones left out, each value an element of its own. */
function argvOf(kind: Kind, root: Layout, { socket, upgrade = false }: { readonly socket: string; readonly upgrade?: boolean }): string[] {
  return [
    'fuse', ...(upgrade ? ['--upgrade'] : []), '--thread-num', '4', '--id', 'ID', ...(kind === 'dedicated' ? ['--config', root.config, '--bootstrap', SOURCE] : []), '--mountpoint', root.mountpoint,
    '--apisock', socket, '--log-level', 'info', '--log-rotation-size', '100', '--supervisor', root.supervisor, '--log-file', path.join(root.logs, 'nydusd.log'),
    ...(kind === 'dedicated' ? ['--prefetch-files', root.prefetch] : []), '--failover-policy', 'resend',
  ]
}

interface Layout { readonly config: string; readonly mountpoint: string; readonly supervisor: string; readonly logs: string; readonly prefetch: string; socket(number: number): string }

/** The directories of a snapshotter, as it makes them. */
function layoutIn(scratch: Scratch): Layout {
  const at = (...names: string[]): string => path.join(scratch.path, ...names)
  for (const folder of ['config/ID', 'socket/ID', 'logs/ID', 'supervisor']) mkdirSync(at(folder), { recursive: true })
  const [config, prefetch] = [at('config/ID/config.json'), at('prefetch')]
  // pkg/daemon: every value that the Go struct has, the empty ones too
  writeFileSync(config, JSON.stringify({
    device: {
      backend: { type: 'localfs', config: { dir: path.join(VECTORS, 'blobs'), readahead: false, timeout: 5, connect_timeout: 5, retry_limit: 2, mirrors: null } },
      cache: { type: 'blobcache', config: { work_dir: scratch.cache, disable_indexed_map: false } }, id: '/ID',
    },
    mode: 'direct', digest_validate: false, iostats_files: false, enable_xattr: true, amplify_io: 1048576, fs_prefetch: { enable: true, prefetch_all: false, threads_count: 8, merging_size: 1048576, bandwidth_rate: 0 },
  }))
  writeFileSync(prefetch, `${FILE.path}\n`)
  return { config, prefetch, mountpoint: scratch.mountpoint, supervisor: at('supervisor/ID.sock'), logs: at('logs/ID'), socket: (number) => at('socket/ID', number === 0 ? 'api.sock' : `api${number}.sock`) }
}

/** The manager's monitor: a connection that says nothing, whose end is the daemon's death. */
function watch(socket: string): { readonly isDead: () => boolean; end(): void } {
  let isDead = false
  const connection = connect(socket).on('end', () => { isDead = true }).on('close', () => { isDead = true }).on('error', () => {})
  return { isDead: () => isDead, end: () => void connection.destroy() }
}

class Manager implements AsyncDisposable {
  daemon!: RunningDaemon
  readonly #scratch: Scratch
  readonly #kind: Kind
  readonly #root: Layout
  readonly #supervisor: Supervisor
  #monitor: ReturnType<typeof watch> | undefined
  #sockets = 0

  private constructor(scratch: Scratch, kind: Kind, root: Layout, supervisor: Supervisor) {
    this.#scratch = scratch
    this.#kind = kind
    this.#root = root
    this.#supervisor = supervisor
  }

  static async start(scratch: Scratch, kind: Kind): Promise<Manager> {
    const root = layoutIn(scratch)
    const manager = new Manager(scratch, kind, root, await Supervisor.start(root.supervisor))
    manager.daemon = await manager.#spawn('RUNNING')
    manager.#subscribe()
    return manager
  }

  /** What follows the start of a daemon. */
  async begin(): Promise<void> {
    if (this.#kind === 'shared') await this.mount('POST')
    expect(await this.daemon.ask('GET', `/api/v1/metrics/blobcache${this.#kind === 'shared' ? '?id=/ID' : ''}`)).toMatchObject({ status: 200, body: { store_path: this.#scratch.cache } })
    await this.save()
  }

  async mount(method: 'POST' | 'DELETE'): Promise<void> {
    const body = method === 'POST' ? JSON.stringify({ fs_type: 'rafs', source: SOURCE, config: readFileSync(this.#root.config, 'utf8') }) : undefined
    expect(await this.daemon.ask(method, '/api/v1/mount?mountpoint=/ID', body)).toMatchObject({ status: 204 })
  }

  async save(): Promise<void> {
    expect(await this.#supervisor.expecting('receive', () => this.#put('fuse/sendfd'))).toMatch(/^received /)
  }

  /** The monitor hears of the death; recover policy "failover". */
  async failover(): Promise<void> {
    this.daemon.child.kill('SIGKILL')
    await eventually(() => this.#monitor?.isDead() === true, 'the monitor hears of the death')
    expect(await this.#supervisor.expecting('send', async () => {
      this.daemon = await this.#spawn('INIT')
      await this.#put('fuse/takeover')
    })).toMatch(/^sent /)
    await this.#put('start')
    await this.#until('RUNNING')
    this.#subscribe()
  }

  /** `upgradeNydusDaemon`. */
  async upgrade(): Promise<void> {
    const old = this.daemon
    await this.save()
    this.#monitor?.end()
    this.#sockets++
    await this.#supervisor.expecting('send', async () => {
      this.daemon = await this.#spawn('INIT', true)
      await this.#put('fuse/takeover')
    })
    await this.#until('READY')
    expect((await old.ask('PUT', '/api/v1/daemon/exit')).status).toBe(204)
    expect(await old.ended).toMatchObject({ status: 0 })
    await this.#put('start')
    await this.#until('RUNNING')
    if (this.#kind === 'shared') await this.mount('POST') // an answer other than 204 ends the real one's upgrade
    this.#subscribe()
    await this.save()
  }

  /** As upstream's smoke test does it: the old one goes first, the new one is saved before it starts. */
  async upgradeAsInSmokeTest(): Promise<void> {
    const old = this.daemon
    await this.save()
    this.#sockets++
    this.daemon = await this.#spawn('INIT', true)
    if (this.#kind === 'shared') await this.mount('POST')
    expect((await old.ask('PUT', '/api/v1/daemon/exit')).status).toBe(204)
    await old.ended
    await this.#supervisor.expecting('send', () => this.#put('fuse/takeover'))
    await this.save()
    await this.#put('start')
    await this.#until('RUNNING')
    this.#subscribe()
  }

  /** SIGTERM, the process, the mountpoint. */
  async tearDown(): Promise<void> {
    if (this.#kind === 'shared') {
      await this.mount('DELETE')
      await this.save()
    }
    this.daemon.child.kill('SIGTERM')
    expect(await this.daemon.ended).toMatchObject({ status: 0 })
    await eventually(() => !this.#scratch.isMounted(), 'the mountpoint is free')
  }

  async #spawn(state: 'INIT' | 'RUNNING', upgrade = false): Promise<RunningDaemon> {
    const socket = this.#root.socket(this.#sockets)
    return await startNydusd(this.#scratch, [], { state, socket, argv: argvOf(this.#kind, this.#root, { socket, upgrade }) })
  }

  async #put(what: string): Promise<void> {
    expect(await this.daemon.ask('PUT', `/api/v1/daemon/${what}`), what).toMatchObject({ status: 204 })
  }

  async #until(state: string): Promise<void> {
    expect((await this.daemon.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state, id: 'ID', supervisor: this.#root.supervisor })
  }

  #subscribe(): void {
    this.#monitor?.end()
    this.#monitor = watch(this.#root.socket(this.#sockets))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#monitor?.end()
    await this.daemon[Symbol.asyncDispose]()
    await this.#supervisor[Symbol.asyncDispose]()
  }
}

describe('the snapshotter\'s manager', () => {
  it.each(['dedicated', 'shared'] as const)('starts a %s daemon, brings it back after a crash, upgrades it in both orders and takes it down, with the files always there', async (kind) => {
    using scratch = new Scratch()
    await using manager = await Manager.start(scratch, kind)
    await manager.begin()
    const root = kind === 'shared' ? path.join(scratch.mountpoint, 'ID') : scratch.mountpoint
    const names = readdirSync(root)
    const bytes = readFileSync(path.join(root, FILE.path))
    expect(bytes.length).toBe(FILE.size)
    const isThere = (): void => {
      expect(readdirSync(root)).toEqual(names)
      expect(readFileSync(path.join(root, FILE.path)).equals(bytes)).toBe(true)
    }
    await manager.failover()
    isThere()
    await manager.upgrade()
    isThere()
    await manager.failover()
    isThere()
    await manager.upgradeAsInSmokeTest()
    isThere()
    await manager.tearDown()
    expect(existsSync(path.join(scratch.path, 'logs/ID/nydusd.log'))).toBe(true)
  })
})

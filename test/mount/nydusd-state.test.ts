// A saved daemon state is enough to go on: another daemon gets the bytes and the descriptor, and clients notice nothing.
// Workers are files of dist/, so the daemon of dist/ runs here, two of them in this process.

import { execFile, spawn } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import type * as Rafs from '../../src/rafs/index.ts'
import type * as Serve from '../../src/serve/index.ts'
import type * as Storage from '../../src/storage/index.ts'
import { differences, expectOfCase, parseScan, VECTORS } from '../support/expect.ts'
import { eventually, Scratch } from '../support/nydusd.ts'

const DIST = path.resolve(import.meta.dirname, '../../dist')
// SAFETY: dist/ is what the compiler made of src/.
const { Daemon, decodeState, encodeState, imageFileSystem, StateSecrets } = (await import(`${DIST}/serve/index.js`)) as typeof Serve
const { RafsImage } = (await import(`${DIST}/rafs/index.js`)) as typeof Rafs
const { LocalfsBackend } = (await import(`${DIST}/storage/index.js`)) as typeof Storage

const run = promisify(execFile)
const CASE = 'v6-small-zstd'
const bootstrap = path.join(VECTORS, CASE, 'image.boot')

async function open(scratch: Scratch): Promise<Rafs.RafsImage> {
  return await RafsImage.open({ bootstrap, backend: new LocalfsBackend({ dir: path.join(VECTORS, 'blobs') }), cacheDirectory: scratch.cache, signal: new AbortController().signal })
}

/** A process that holds `file` open and says its digest on demand. */
async function holder(file: string): Promise<{ sha256(): Promise<string>; end(): void }> {
  const child = spawn('sh', ['-c', 'exec 3<"$1"; echo open; read go; sha256sum <&3', 'sh', file], { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => { text += part })
  const closed = new Promise((resolve) => child.once('close', resolve))
  await eventually(() => text === 'open\n', 'the file is open')
  return {
    async sha256() {
      child.stdin.end('go\n')
      await closed
      return text.split('\n')[1]!.split(' ')[0]!
    },
    end: () => void child.kill('SIGKILL'),
  }
}

function mounted(image: Rafs.RafsImage): Serve.MountedFileSystem {
  return { mountpoint: '/', type: 'Rafs', source: bootstrap, config: '{}', fileSystem: imageFileSystem(image), shownConfig: {} }
}

describe('a daemon restored from its saved state', () => {
  it('continues the connection: open files, known names and new ones work, without a new handshake', async () => {
    using scratch = new Scratch()
    const openMount = async (): Promise<Serve.MountedFileSystem> => mounted(await open(scratch))
    const options = { id: 'd', supervisor: undefined, threads: 1, mountpoint: scratch.mountpoint, writable: false, openMount }
    const first = new Daemon(options)
    first.mount(mounted(await open(scratch)))
    // Every access is made by another process: this one serves, and must not wait for itself.
    const expected = expectOfCase(CASE)!.filter(({ type, size }) => type === 'reg' && size! > 5000)
    const files = expected.map((entry) => scratch.mountpoint + entry.path)
    await run('stat', files) // the kernel knows their node ids now
    const held = await holder(files[0]!)
    const before = (await run('stat', ['-c', '%i', files[1]!])).stdout

    const { state, fd } = first.save()
    const secrets = new StateSecrets(path.join(scratch.path, 'run'))
    const bytes = encodeState(state, secrets)
    expect(await first.stop({ unmount: false })).toEqual({ error: undefined, stuck: false })

    const second = new Daemon(options)
    try {
      const restored = decodeState(bytes, secrets)
      expect(restored).toEqual(state)
      await second.restore(restored, fd)
      expect(second.state).toBe('READY')
      second.start()
      expect(second.state).toBe('RUNNING')
      expect(second.mounts().map(({ mountpoint }) => mountpoint)).toEqual(['/'])
      expect(await held.sha256()).toBe(expected[0]!.sha256)
      expect((await run('stat', ['-c', '%i', files[1]!])).stdout).toBe(before)
      const { stdout } = await run('python3', [path.join(VECTORS, 'scan.py'), scratch.mountpoint], { maxBuffer: 2 ** 26 })
      expect(await differences(expectOfCase(CASE)!, { walk: () => parseScan(stdout) }, { ignore: ['nlink', 'sameAs'] })).toEqual([])
      expect(second.save().state.lastSerial).toBe(state.lastSerial)
    } finally {
      held.end()
      expect(await second.stop({ unmount: true })).toMatchObject({ stuck: false })
    }
    expect(scratch.isMounted()).toBe(false)
  })

  it('cannot be saved before it has a connection', async () => {
    using scratch = new Scratch()
    const daemon = new Daemon({ id: '', supervisor: undefined, threads: 1, mountpoint: scratch.mountpoint, writable: false })
    try {
      expect(() => daemon.save()).toThrow(expect.objectContaining({ code: 'SERVE_NOT_READY' }))
    } finally {
      await daemon.stop({ unmount: false })
    }
    expect(daemon.state).toBe('STOPPED')
    expect(() => daemon.mount(undefined)).toThrow(expect.objectContaining({ code: 'SERVE_STATE' }))
    expect(scratch.isMounted()).toBe(false)
  })
})

// Requests that a server of a writable mount has carried out and not answered, asked again of the next one: over a real image and real
// directories, at each moment at which a server can die between a request and its answer.

import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RafsImage } from '../../src/rafs/index.ts'
import type { FileSystem } from '../../src/serve/daemon/file-system.ts'
import type { DelegateServer } from '../../src/serve/fuse/live-requests.ts'
import { overlayFileSystem } from '../../src/serve/overlay/open.ts'
import { LocalfsBackend } from '../../src/storage/index.ts'
import { createIn, linkIn, mkdirIn, mknodIn, rename2In, setxattrIn } from '../../src/wire/fuse/change.ts'
import { inHeader, outHeader } from '../../src/wire/fuse/header.ts'
import { entryOut } from '../../src/wire/fuse/inode.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import { WritableImage, WritableScratch } from '../support/overlay.ts'
import { requires } from '../support/requires.ts'

const RESENT = 0x8000_0000
const EXCHANGE = 2
/** Of a slot of the journal: its state, and the unique behind it (serve/journal.ts). */
const SLOT = { size: 256, state: 4, unique: 8 } as const
const BEGUN = 1

interface Answer { readonly error: number; readonly body: Buffer }
interface Asked { readonly op: number; readonly node: number; readonly body: Uint8Array }

const text = (...names: string[]): Buffer => Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1')
const join = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts)

/** One server after the other over the same directories. */
class Servers implements AsyncDisposable {
  readonly scratch: WritableScratch
  readonly #image: WritableImage
  #fileSystem!: FileSystem
  #server!: DelegateServer
  #unique = 100

  private constructor(image: WritableImage) {
    this.#image = image
    this.scratch = new WritableScratch(image)
  }

  static async start(image: WritableImage): Promise<Servers> {
    const servers = new Servers(image)
    await servers.#open(false)
    return servers
  }

  async ask({ op, node, body }: Asked, unique = this.#unique += 2, uniqueHigh = 0): Promise<Answer> {
    const request = Buffer.alloc(inHeader.size + body.length)
    inHeader.encode({ length: request.length, opcode: op, uniqueLow: unique, uniqueHigh, nodeLow: node, nodeHigh: node === 1 ? 0 : 1, uid: 0, gid: 0, pid: 1, extensions: 0 }, request)
    request.set(body, inHeader.size)
    const reply = Buffer.alloc(8192)
    const length = await this.#server.serve(request, reply)
    const header = outHeader.decode(reply)
    expect([header.uniqueLow, header.uniqueHigh, header.length]).toEqual([unique, uniqueHigh, length])
    return { error: Math.abs(header.error), body: reply.subarray(outHeader.size, length) }
  }

  /** Asks, loses the answer, lets the server die, and asks the next one again. `begun`: it dies before it has written down that it is done. */
  async askTwice(asked: Asked, { begun }: { readonly begun: boolean }): Promise<readonly [first: Answer, second: Answer]> {
    const first = await this.ask(asked)
    await this.die()
    if (begun) this.journal((slot) => { if (slot.readUInt32LE(SLOT.unique) === this.#unique) slot.writeUInt32LE(BEGUN, SLOT.state) })
    await this.#open(true)
    return [first, await this.ask(asked, this.#unique, RESENT)]
  }

  /** The next request is one that a server before this one has begun, and not done. */
  async begunOnly(): Promise<void> {
    await this.die()
    this.journal((slot) => {
      slot.writeUInt32LE(BEGUN, SLOT.state)
      slot.writeUInt32LE(this.#unique + 2, SLOT.unique)
    })
    await this.#open(true)
  }

  /** Changes each slot of the journal of a server that has died. */
  journal(change: (slot: Buffer) => void): void {
    const file = path.join(this.scratch.work, 'nydus/journal')
    const bytes = readFileSync(file)
    for (let at = 0; at + SLOT.size <= bytes.length; at += SLOT.size) change(bytes.subarray(at, at + SLOT.size))
    writeFileSync(file, bytes)
  }

  async die(): Promise<void> {
    this.#server.abandon()
    await this.#fileSystem.close()
  }

  async node(parent: number, name: string): Promise<number> {
    const { body } = await this.ask({ op: FUSE_OP.LOOKUP, node: parent, body: text(name) })
    return body.readUInt32LE(entryOut.offsetOf.nodeLow)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fileSystem.close()
    this.scratch[Symbol.dispose]()
  }

  async #open(resume: boolean): Promise<void> {
    const image = await RafsImage.open({ bootstrap: this.#image.bootstrap, backend: new LocalfsBackend({ dir: this.#image.blobs }), signal: new AbortController().signal })
    this.#fileSystem = overlayFileSystem(image, { upperDir: this.scratch.upper, workDir: this.scratch.work }, { resume })
    this.#server = this.#fileSystem.delegate!({ nodeHigh: 1, inoHigh: 0 })
  }
}

describe.runIf(requires.root)('a request that is repeated after its server died', () => {
  let image: WritableImage
  beforeAll(() => { image = new WritableImage(11) })
  afterAll(() => image[Symbol.dispose]())

  const create = (node: number, name: string): Asked => ({ op: FUSE_OP.CREATE, node, body: join(createIn.encode({ flags: 2, mode: 0o644, umask: 0, openFlags: 0 }), text(name)) })
  const mkdir = (node: number, name: string): Asked => ({ op: FUSE_OP.MKDIR, node, body: join(mkdirIn.encode({ mode: 0o755, umask: 0 }), text(name)) })
  const rename = (node: number, name: string, to: number, newName: string, flags = 0): Asked =>
    ({ op: FUSE_OP.RENAME2, node, body: join(rename2In.encode({ parentLow: to, parentHigh: to === 1 ? 0 : 1, flags }), text(name, newName)) })

  it.each([['after it was written down as done', false], ['before it was written down as done', true]] as const)('has the answer of the first, and was done once: %s', async (_, begun) => {
    await using servers = await Servers.start(image)
    const { upper, work } = servers.scratch
    const known = await servers.node(1, 'known')
    const file = await servers.node(known, 'file-3')
    await servers.ask(create(known, 'made'))
    await servers.ask(mkdir(known, 'directory-made'))
    const made = await servers.node(known, 'made')
    const cases: readonly (readonly [what: string, asked: Asked])[] = [
      ['create', create(known, 'once')],
      ['mkdir', mkdir(known, 'one')],
      ['mknod', { op: FUSE_OP.MKNOD, node: known, body: join(mknodIn.encode({ mode: 0o010644, rdev: 0, umask: 0 }), text('fifo')) }],
      ['symlink', { op: FUSE_OP.SYMLINK, node: known, body: text('link', 'target') }],
      ['link', { op: FUSE_OP.LINK, node: known, body: join(linkIn.encode({ nodeLow: made, nodeHigh: 1 }), text('second')) }],
      ['setxattr', { op: FUSE_OP.SETXATTR, node: made, body: join(setxattrIn.encode({ size: 1, flags: 1 }), text('user.a'), Buffer.from('v')) }],
      ['removexattr', { op: FUSE_OP.REMOVEXATTR, node: made, body: text('user.a') }],
      ['rename of a file', rename(known, 'made', 1, 'moved')],
      ['rename of a file of the image', rename(known, 'file-2', known, 'file-2-moved')],
      ['rename over a file of the image', rename(known, 'file-4', known, 'file-5')],
      ['rename of a directory over what was removed', rename(known, 'directory-made', known, 'file-4')],
      ['exchange', rename(known, 'once', known, 'file-3', EXCHANGE)],
      ['unlink of a new file', { op: FUSE_OP.UNLINK, node: known, body: text('second') }],
      ['unlink of a file of the image', { op: FUSE_OP.UNLINK, node: known, body: text('file-6') }],
      ['rmdir of a new directory', { op: FUSE_OP.RMDIR, node: known, body: text('one') }],
    ]
    for (const [what, asked] of cases) {
      const [first, second] = await servers.askTwice(asked, { begun })
      expect([what, first.error, second.error]).toEqual([what, 0, 0])
      if (first.body.length >= entryOut.size) expect([what, second.body.readUInt32LE(0) > 0]).toEqual([what, true])
    }
    const there = readdirSync(path.join(upper, 'known'))
    expect(there.filter((name) => !lstatSync(path.join(upper, 'known', name)).isCharacterDevice()).sort()).toEqual(['fifo', 'file-2-moved', 'file-3', 'file-4', 'file-5', 'link', 'once'])
    expect(there.filter((name) => lstatSync(path.join(upper, 'known', name)).isCharacterDevice()).sort()).toEqual(['file-2', 'file-6'])
    expect(readFileSync(path.join(upper, 'known/once'))).toEqual(readFileSync(path.join(image.source, 'known/file-3')))
    expect([lstatSync(path.join(upper, 'known/file-4')).isDirectory(), existsSync(path.join(upper, 'moved')), lstatSync(path.join(upper, 'moved')).nlink]).toEqual([true, true, 1])
    expect(readdirSync(path.join(work, 'nydus/new')).filter((name) => !name.startsWith('kept-'))).toEqual([])
    expect(await servers.node(known, 'once'), 'the kernel\'s number for it').toBe(file)
  })

  it('is done when it was only begun', async () => {
    await using servers = await Servers.start(image)
    await servers.ask(mkdir(1, 'first'))
    for (const asked of [mkdir(1, 'second'), rename(1, 'first', 1, 'third'), { op: FUSE_OP.RMDIR, node: 1, body: text('third') }]) {
      await servers.begunOnly()
      expect((await servers.ask(asked, undefined, RESENT)).error).toBe(0)
    }
    expect(readdirSync(servers.scratch.upper)).toEqual(['second'])
  })

  it('is refused as any other when nothing is known of it', async () => {
    await using servers = await Servers.start(image)
    expect((await servers.ask(mkdir(1, 'there'))).error).toBe(0)
    expect((await servers.ask(mkdir(1, 'there'), 9_999, RESENT)).error).toBe(17) // EEXIST
  })
})

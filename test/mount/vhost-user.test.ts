// nydusd virtiofs with a front end of our own: what QEMU does, what another monitor might, and what a hostile one would.

import { ftruncateSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/load.ts'
import { openOut } from '../../src/wire/fuse/file.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import { memoryRegion, memoryTable, MESSAGE_VERSION, messageHeader, u64Payload, VHOST_USER, vringFile, vringState } from '../../src/wire/vhost-user/message.ts'
import { descriptor } from '../../src/wire/virtio/ring.ts'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { FUZZ_TIMEOUT, fuzz } from '../support/fuzz-run.ts'
import { ENOENT, lookup, read, ROOT, sha256Of, walkTo } from '../support/guest-files.ts'
import { eventually, type RunningDaemon, runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'
import { type FrontEndOptions, TestFrontEnd } from '../support/vhost-front-end.ts'
import { GUEST_BASE } from '../support/virtio-driver.ts'

const CASE = 'v6-rich-chunk64k'
const BOOT = path.join(VECTORS, CASE, 'image.boot')
const files = expectOfCase(CASE)!.filter(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name))
const largest = files.reduce((a, b) => a.size! > b.size! ? a : b)
/** As a reply has it. */
const EINVAL = -22

function share(scratch: Scratch): string {
  return path.join(scratch.path, 'fs.sock')
}

async function start(scratch: Scratch, args: readonly string[] = ['--bootstrap', BOOT, '--config', scratch.config()]): Promise<RunningDaemon> {
  return await startNydusd(scratch, args, { where: ['virtiofs', '--sock', share(scratch)] })
}

/** A started front end after its INIT. */
function connect(scratch: Scratch, options: FrontEndOptions = {}): TestFrontEnd {
  const guest = new TestFrontEnd(share(scratch), options)
  guest.start()
  const init = guest.init()
  if (init.error !== 0) throw new Error(`INIT: ${init.error}`)
  return guest
}

describe('nydusd virtiofs', () => {
  it.each<[string, FrontEndOptions, { parts?: number; indirect?: boolean; queue?: number }]>([
    ['as QEMU does', {}, {}],
    ['without event indexes, through a second request queue', { eventIndex: false, requestQueues: 2 }, { queue: 2 }],
    ['with scattered buffers and memory slots', { memorySlots: true }, { parts: 7 }],
    ['with indirect tables and without acknowledgements', { replyAck: false }, { parts: 3, indirect: true }],
  ])('serves files %s, from the backend and from the cache', async (_how, options, how) => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    using guest = connect(scratch, options)
    for (const round of ['cold', 'warm']) {
      for (const file of [largest, files[0]!, files.at(-1)!]) expect([round, file.path, sha256Of(guest, file.path, how)]).toEqual([round, file.path, file.sha256])
    }
    expect(lookup(guest, 'no such name').error).toBe(ENOENT)
  })

  it('gives the buffers of a FORGET back, and takes no room as no answer', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    using guest = connect(scratch)
    expect(guest.call(guest.request(FUSE_OP.FORGET, ROOT, Buffer.alloc(8)), 16, { queue: 0 }).written).toBe(0)
    const { node } = walkTo(guest, largest.path)
    expect(read(guest, node, 0, 4096, {}, 8).written).toBe(0)
    expect(read(guest, node, 0, 4096, {}, 1024)).toMatchObject({ error: EINVAL, written: 16 })
    expect(guest.call(Buffer.alloc(5), 1024).written).toBe(0) // not even a header
    expect(read(guest, node, 0, 4096).body).toHaveLength(4096)
  })

  it('starts RUNNING before anybody connects; the next machine is served when the first has gone; INIT may come again', async () => {
    using scratch = new Scratch()
    await using daemon = await start(scratch)
    for (const _machine of [1, 2]) {
      using guest = connect(scratch)
      expect(guest.init().error).toBe(0)
      expect(sha256Of(guest, files[0]!.path)).toBe(files[0]!.sha256)
    }
    using first = connect(scratch)
    using second = new TestFrontEnd(share(scratch))
    expect(sha256Of(first, files[0]!.path)).toBe(files[0]!.sha256)
    first[Symbol.dispose]()
    second.start()
    expect(second.init().error).toBe(0)
    expect((await daemon.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state: 'RUNNING' })
  })

  it('stops a queue and goes on where it was, in memory that was shared anew', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    using guest = connect(scratch)
    const { node } = walkTo(guest, largest.path)
    const base = guest.stopQueue(1)
    expect(base).toBe(guest.queues[1]!.availableIndex)
    guest.shareMemory()
    guest.startQueue(1, base)
    expect(read(guest, node, 0, 100).body).toHaveLength(100)
  })

  it('mounts and unmounts by API while the machine runs', async () => {
    using scratch = new Scratch()
    await using daemon = await start(scratch, [])
    using guest = connect(scratch)
    expect(lookup(guest, 'rafs').error).toBe(ENOENT)
    const body = JSON.stringify({ fs_type: 'rafs', source: BOOT, config: readFileSync(scratch.config(), 'utf8') })
    const mountpoint = '/rafs/1/lowerdir' // as Kata writes it, not percent-encoded
    expect(await daemon.ask('POST', `/api/v1/mount?mountpoint=${mountpoint}`, body)).toMatchObject({ status: 204 })
    expect(sha256Of(guest, `${mountpoint}/${files[0]!.path}`)).toBe(files[0]!.sha256)
    expect(await daemon.ask('DELETE', `/api/v1/mount?mountpoint=${mountpoint}`)).toMatchObject({ status: 204 })
    expect(lookup(guest, 'rafs').error).toBe(ENOENT)
  })

  it('ends on SIGTERM with a machine connected, removes its socket, and takes over one that a killed daemon left', async () => {
    using scratch = new Scratch()
    {
      await using daemon = await start(scratch)
      using _guest = connect(scratch)
      expect(await runNydusd(['virtiofs', '--sock', share(scratch), '--bootstrap', BOOT, '--config', scratch.config()])).toMatchObject({ status: 1, stderr: expect.stringMatching(/somebody listens on/) })
      const began = Date.now()
      daemon.child.kill('SIGTERM')
      expect((await daemon.ended).status).toBe(0)
      expect(Date.now() - began).toBeLessThan(5000)
      expect(readdirSync(scratch.path)).not.toContain('fs.sock')
    }
    {
      await using daemon = await start(scratch)
      daemon.child.kill('SIGKILL')
      await daemon.ended
    }
    await using _daemon = await start(scratch)
    using guest = connect(scratch)
    expect(sha256Of(guest, files[0]!.path)).toBe(files[0]!.sha256)
  })

  it('says what is missing on its command line', async () => {
    expect(await runNydusd(['virtiofs'])).toMatchObject({ status: 2, stderr: expect.stringMatching(/--sock/) })
  })
})

describe('a hostile monitor or guest', () => {
  const message = (request: number, payload: Uint8Array, flags = MESSAGE_VERSION, size = payload.length): Buffer =>
    Buffer.concat([messageHeader.encode({ request, flags, size }), payload])

  it.each([['by the daemon itself'], ['through a holder', '--self-heal']])('has its connection closed, and the next one is served (%s)', async (_how, ...held) => {
    using scratch = new Scratch()
    await using daemon = await start(scratch, ['--bootstrap', BOOT, '--config', scratch.config(), ...held])
    const eight = u64Payload.encode({ value: 0xffff_ffff_ffff_ffffn })
    const region = memoryRegion.encode({ guest: 0, size: 2 ** 40, user: 0, offset: 0 })
    const attacks: [Buffer, number][] = [
      [message(VHOST_USER.SET_OWNER, Buffer.alloc(0), 2), 0],
      [message(VHOST_USER.SET_OWNER, Buffer.alloc(0), MESSAGE_VERSION, 2 ** 31), 0],
      [message(VHOST_USER.SET_FEATURES, eight), 0],
      [message(VHOST_USER.SET_FEATURES, Buffer.alloc(3)), 0],
      [message(VHOST_USER.SET_MEM_TABLE, Buffer.concat([memoryTable.encode({ count: 1 }), region])), 0],
      [message(VHOST_USER.SET_MEM_TABLE, Buffer.concat([memoryTable.encode({ count: 1 }), region])), 1],
      [message(VHOST_USER.SET_MEM_TABLE, memoryTable.encode({ count: 8 })), 8],
      [message(VHOST_USER.ADD_MEM_REG, Buffer.alloc(8)), 1],
      [message(VHOST_USER.REM_MEM_REG, Buffer.concat([Buffer.alloc(8), region])), 0],
      [message(VHOST_USER.SET_VRING_NUM, vringState.encode({ index: 200, value: 8 })), 0],
      [message(VHOST_USER.SET_VRING_NUM, vringState.encode({ index: 0, value: 7 })), 0],
      [message(VHOST_USER.SET_VRING_KICK, vringFile.encode({ index: 0, flags: 0 })), 1],
      [message(VHOST_USER.SET_VRING_KICK, vringFile.encode({ index: 0, flags: 1 })), 0],
      [message(VHOST_USER.SET_LOG_BASE, eight), 1],
      [message(4711, Buffer.alloc(0)), 8],
      [Buffer.concat([message(VHOST_USER.SET_OWNER, Buffer.alloc(0)), message(VHOST_USER.SET_VRING_ENABLE, vringState.encode({ index: 99, value: 1 }))]), 0],
    ]
    for (const [bytes, fds] of attacks) {
      using guest = new TestFrontEnd(share(scratch))
      native().sendFds(guest.socket, bytes, new Int32Array(fds).fill(guest.memory.fd))
      expect(() => guest.answer(0), bytes.toString('hex')).toThrow('closed')
    }
    using guest = connect(scratch)
    expect(sha256Of(guest, files[0]!.path)).toBe(files[0]!.sha256)
    expect((await daemon.ask('GET', '/api/v1/daemon')).status).toBe(200)
    daemon.child.kill('SIGTERM')
    expect((await daemon.ended).status).toBe(0)
    expect(readdirSync(scratch.path).filter((name) => name.endsWith('.sock'))).toEqual([])
  })

  it('loses the queue whose protocol it breaks, hears of it, and nothing else', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    using guest = connect(scratch, { requestQueues: 2 })
    const queue = guest.queues[2]!
    queue.writeDescriptor(0, { address: GUEST_BASE, length: 16, flags: 1, next: 0 })
    queue.submit(0)
    native().eventSignal(queue.kick)
    const waiting = native().waitSetCreate()
    native().edgeAdd(waiting, queue.error, 0)
    expect(native().edgeWait(waiting, new Int32Array(1), 10_000)).toBe(1)
    native().closeFd(waiting)
    expect(queue.takeUsed()).toBeUndefined()
    expect(sha256Of(guest, files[0]!.path, { queue: 1 })).toBe(files[0]!.sha256)
  })

  it('takes its memory away without taking the daemon down', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    {
      using guest = connect(scratch)
      const queue = guest.queues[1]!
      queue.submit(queue.chain(guest.request(FUSE_OP.GETATTR, ROOT, Buffer.alloc(16)), 120).head)
      ftruncateSync(guest.memory.fd, 0)
      native().eventSignal(queue.kick)
      expect(() => guest.ask(VHOST_USER.GET_FEATURES)).not.toThrow()
      ftruncateSync(guest.memory.fd, guest.memory.size)
    }
    using next = connect(scratch)
    expect(sha256Of(next, files[0]!.path)).toBe(files[0]!.sha256)
  })

  it('names files of nobody, of other images and above the root in vain', async () => {
    using scratch = new Scratch()
    await using _daemon = await start(scratch)
    using guest = connect(scratch)
    for (const name of ['..', '../..', 'a/b', '/', '']) {
      const { error, node } = lookup(guest, name)
      expect(error !== 0 || (node.low === ROOT.low && node.high === 0), name).toBe(true)
    }
    for (const node of [{ low: 5, high: 77 }, { low: 0xffff_ffff, high: 1 }, { low: 0, high: 0 }, { low: 2, high: 0xffff_ffff }]) {
      expect(read(guest, node, 0, 4096).error).toBeLessThan(0)
      expect(guest.call(guest.request(FUSE_OP.OPEN, node, Buffer.alloc(8)), 16 + openOut.size).error).toBeLessThanOrEqual(0)
    }
  })

  it('cannot crash, fill or hang the daemon with random requests, rings and messages', { timeout: FUZZ_TIMEOUT }, async () => {
    using scratch = new Scratch()
    await using daemon = await start(scratch)
    const descriptors = (): number => readdirSync(`/proc/${daemon.pid}/fd`).length
    const resident = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))![1])
    {
      using guest = connect(scratch)
      sha256Of(guest, largest.path)
    }
    const [fdsBefore, memoryBefore] = [descriptors(), resident()]
    await fuzz('vhost-user', { leastPassed: 0.15 }, (random, note) => {
      const pick = (below: number): number => Math.floor(random() * below)
      using guest = connect(scratch)
      const queue = guest.queues[1]!
      let answered = 0
      for (let i = 0; i < 20; i++) {
        const kind = pick(4)
        note(`step ${i}, kind ${kind}`)
        if (kind === 0) { // a request of random opcode, node and body
          const body = Buffer.from(Array.from({ length: pick(80) }, () => pick(256)))
          const bytes = guest.request(pick(60), { low: pick(3000), high: pick(3) }, body)
          if (bytes.readUInt32LE(4) === FUSE_OP.FORGET) continue
          guest.call(bytes, 16 + pick(9000), { parts: 1 + pick(4), indirect: random() < 0.3 })
          answered++
        } else if (kind === 1) { // random bytes in the descriptor table; the queue may be lost
          const at = queue.descriptors + pick(queue.size * descriptor.size)
          guest.memory.bytes[at] = pick(256)
        } else if (kind === 2) {
          queue.submit(pick(queue.size + 2))
          native().eventSignal(queue.kick)
          break
        } else {
          const payload = Buffer.from(Array.from({ length: pick(64) }, () => pick(random() < 0.5 ? 4 : 256)))
          native().sendFds(guest.socket, Buffer.concat([messageHeader.encode({ request: pick(42), flags: 1, size: payload.length }), payload]), new Int32Array(pick(3)).fill(guest.memory.fd))
          break
        }
      }
      return answered > 0
    })
    await eventually(() => descriptors() <= fdsBefore + 2, 'descriptors are closed')
    expect(resident() - memoryBefore).toBeLessThan(200 * 1024)
    using guest = connect(scratch)
    expect(sha256Of(guest, largest.path)).toBe(largest.sha256)
  })
})

// A driver of our own on one side, the device's queue on the other; then a driver that lies.

import { spawnSync } from 'node:child_process'
import { ftruncateSync, openSync } from 'node:fs'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DriverMemory, DriverQueue, GUEST_BASE, USER_BASE } from '../../../test/support/virtio-driver.ts'
import { AVAIL_F, availHead, DESCRIPTOR_F } from '../../wire/virtio/ring.ts'
import { INFLIGHT_VERSION, inflightDescriptor, inflightQueue, inflightSize } from '../../wire/vhost-user/inflight.ts'
import { dataViewOf } from '../../core/struct.ts'
import { GuestMemory, MAX_REGIONS } from './guest-memory.ts'
import { InflightQueue } from './inflight.ts'
import { type Chain, Virtqueue } from './virtqueue.ts'

const SIZE = 8
const MEMORY = 2 ** 20

let memory: DriverMemory
let guest: GuestMemory
let driver: DriverQueue
let device: Virtqueue

function openAgain(fd: number): number {
  return openSync(`/proc/self/fd/${fd}`, 'r+')
}

beforeEach(() => {
  memory = new DriverMemory(MEMORY)
  guest = new GuestMemory()
  guest.add({ guest: GUEST_BASE, size: MEMORY, user: USER_BASE, offset: 0 }, openAgain(memory.fd))
  driver = new DriverQueue(memory, SIZE)
  device = new Virtqueue(guest)
  device.setSize(SIZE)
  device.setAddresses({ descriptors: USER_BASE + driver.descriptors, available: USER_BASE + driver.available, used: USER_BASE + driver.used })
  device.setBase(0)
  device.start()
})

afterEach(() => {
  guest.clear()
  driver.close()
  memory[Symbol.dispose]()
})

function bytesOf(ranges: Chain['request']): string {
  const parts: Buffer[] = []
  for (const { address, length } of ranges) guest.slices(address, length, parts)
  return Buffer.concat(parts).toString()
}

const bad = expect.objectContaining({ code: 'SERVE_BAD_GUEST' })

describe('Virtqueue', () => {
  it.each([[1, false], [3, false], [1, true], [3, true]])('carries a request in %d parts, indirect %s, and its reply', (parts, indirect) => {
    const { head, reply } = driver.chain(Buffer.from('a request'), 20, { parts, indirect, from: 2 - Number(indirect) })
    driver.submit(head)
    const chain = device.pop()!
    expect(bytesOf(chain.request)).toBe('a request')
    expect(chain.reply.reduce((sum, { length }) => sum + length, 0)).toBe(20)
    const into: Buffer[] = []
    for (const { address, length } of chain.reply) guest.slices(address, length, into)
    into[0]!.write('done')
    device.push(chain.head, 4)
    expect(device.takeNotification()).toBe(true)
    expect(driver.takeUsed()).toEqual({ id: head, length: 4 })
    expect(memory.bytes.toString('latin1', reply, reply + 4)).toBe('done')
    expect(device.pop()).toBeUndefined()
  })

  it('goes round its ring and past 65,535 without losing count', () => {
    const { head } = driver.chain(Buffer.from('x'), 8)
    for (let i = 0; i < 70_000; i++) {
      driver.submit(head)
      device.push(device.pop()!.head, i % 8)
      if (driver.takeUsed()?.length !== i % 8) throw new Error(`request ${i} is lost`)
    }
    expect(device.base).toBe(70_000 % 65_536)
  })

  it('answers out of order', () => {
    const heads = [0, 2, 4].map((from) => driver.chain(Buffer.from('x'), 8, { from }).head)
    for (const head of heads) driver.submit(head)
    const chains = heads.map(() => device.pop()!)
    for (const chain of chains.reverse()) device.push(chain.head, 0)
    expect(heads.map(() => driver.takeUsed()!.id)).toEqual([4, 2, 0])
  })

  it('does not interrupt a driver that asked for silence', () => {
    memory.bytes.writeUInt16LE(AVAIL_F.NO_INTERRUPT, driver.available + availHead.offsetOf.flags)
    driver.submit(driver.chain(Buffer.from('x'), 8).head)
    device.push(device.pop()!.head, 0)
    expect(device.takeNotification()).toBe(false)
  })

  it('keeps the two event indexes: a kick is asked for when the queue runs empty, and a signal given when it was asked for', () => {
    device.eventIndex = driver.eventIndex = true
    expect(device.armNotification()).toBe(false)
    const { head } = driver.chain(Buffer.from('x'), 8)
    driver.submit(head)
    expect(driver.notify(0)).toBe(true)
    device.push(device.pop()!.head, 0)
    expect(device.takeNotification()).toBe(true)
    driver.takeUsed()
    driver.submit(head)
    expect(driver.notify(1)).toBe(false) // the device has not asked again: it is still busy
    expect(device.armNotification()).toBe(true) // and is told that it would sleep over a request
    device.push(device.pop()!.head, 0)
    expect(device.armNotification()).toBe(false)
    driver.submit(head)
    expect(driver.notify(2)).toBe(true)
  })

  it('goes on at its base in memory that was mapped anew', () => {
    const { head } = driver.chain(Buffer.from('x'), 8)
    driver.submit(head)
    device.push(device.pop()!.head, 0)
    guest.clear()
    device.forgetMemory()
    expect(() => device.pop()).toThrow(bad)
    guest.add({ guest: GUEST_BASE, size: MEMORY, user: USER_BASE, offset: 0 }, openAgain(memory.fd))
    driver.submit(head)
    device.push(device.pop()!.head, 3)
    expect([driver.takeUsed(), driver.takeUsed()]).toEqual([{ id: head, length: 0 }, { id: head, length: 3 }])
  })
})

describe('a queue whose device was killed', () => {
  const region = (): DataView => dataViewOf(new Uint8Array(inflightSize(SIZE)))

  /** A device that begins where the record says; its front end knows the used ring only. */
  function successor(view: DataView): Virtqueue {
    const next = new Virtqueue(guest)
    next.setSize(SIZE)
    next.setAddresses({ descriptors: USER_BASE + driver.descriptors, available: USER_BASE + driver.available, used: USER_BASE + driver.used })
    next.setBase(memory.bytes.readUInt16LE(driver.used + 2))
    next.start(new InflightQueue(view, 0, SIZE))
    return next
  }

  it('has every request that was not answered done again, once, in order', () => {
    const view = region()
    device.start(new InflightQueue(view, 0, SIZE))
    for (const from of [6, 2, 4, 0]) driver.submit(driver.chain(Buffer.from('x'), 8, { from }).head)
    expect([device.pop()!.head, device.pop()!.head, device.pop()!.head]).toEqual([6, 2, 4])
    device.push(2, 0)
    const next = successor(view)
    const heads = Array.from({ length: 3 }, () => next.pop()?.head)
    expect(heads).toEqual([6, 4, 0])
    expect(next.pop()).toBeUndefined()
    for (const head of [6, 4, 0]) next.push(head, 0)
    expect(Array.from({ length: 4 }, () => driver.takeUsed()?.id)).toEqual([2, 6, 4, 0])
    const last = successor(view)
    expect(last.pop()).toBeUndefined()
  })

  it('does not repeat a request that was answered in the moment of the kill', () => {
    const view = region()
    device.start(new InflightQueue(view, 0, SIZE))
    for (const from of [0, 2]) driver.submit(driver.chain(Buffer.from('x'), 8, { from }).head)
    device.pop()
    device.pop()
    device.push(0, 0)
    // as if the used ring had been raised and the record not yet
    view.setUint8(inflightQueue.size, 1)
    view.setUint16(inflightQueue.offsetOf.usedIndex, 0, true)
    const next = successor(view)
    expect([next.pop()?.head, next.pop()]).toEqual([2, undefined])
  })

  it('is not served from a record of another version or size', () => {
    const view = region()
    view.setUint16(inflightQueue.offsetOf.version, INFLIGHT_VERSION + 1, true)
    expect(() => successor(view)).toThrow(bad)
    const other = dataViewOf(new Uint8Array(inflightSize(SIZE) + inflightDescriptor.size))
    expect(() => device.start(new InflightQueue(other, 0, 2 * SIZE))).toThrow(bad)
  })
})

describe('Virtqueue ends with an error for', () => {
  const raw = (index: number, fields: Partial<{ address: number; length: number; flags: number; next: number }>): void =>
    driver.writeDescriptor(index, { address: GUEST_BASE, length: 16, flags: 0, next: 0, ...fields })

  it.each<[string, () => void]>([
    ['a chain that leads back to itself', () => raw(0, { flags: DESCRIPTOR_F.NEXT, next: 0 })],
    ['a next descriptor outside of the table', () => raw(0, { flags: DESCRIPTOR_F.NEXT, next: SIZE })],
    ['a readable descriptor behind a writable one', () => {
      raw(0, { flags: DESCRIPTOR_F.NEXT | DESCRIPTOR_F.WRITE, next: 1 })
      raw(1, {})
    }],
    ['an indirect table of a broken size', () => raw(0, { flags: DESCRIPTOR_F.INDIRECT, length: 17 })],
    ['an indirect table of no size', () => raw(0, { flags: DESCRIPTOR_F.INDIRECT, length: 0 })],
    ['an indirect table outside of the memory', () => raw(0, { flags: DESCRIPTOR_F.INDIRECT, address: GUEST_BASE + MEMORY })],
    ['an indirect table inside an indirect table', () => {
      raw(0, { flags: DESCRIPTOR_F.INDIRECT, address: GUEST_BASE + driver.descriptors, length: 16 })
    }],
    ['an indirect table in a chain', () => raw(0, { flags: DESCRIPTOR_F.INDIRECT | DESCRIPTOR_F.NEXT })],
    ['more bytes than any request has', () => raw(0, { length: 0xffff_ffff })],
    ['an address beyond 2^53', () => raw(0, { address: 2 ** 63 })],
  ])('%s', (_what, write) => {
    write()
    driver.submit(0)
    expect(() => device.pop()).toThrow(bad)
  })

  it('a head outside of the table', () => {
    driver.submit(SIZE)
    expect(() => device.pop()).toThrow(bad)
  })

  it('more requests than there are entries', () => {
    driver.setAvailableIndex(SIZE + 1)
    expect(() => device.pop()).toThrow(bad)
  })

  it.each([0, 3, 2048, 65_536])('a queue of %d entries', (size) => expect(() => device.setSize(size)).toThrow(bad))

  it.each([['available', 1], ['used', 2]] as const)('a %s ring that is not aligned', (ring, shift) => {
    const addresses = { descriptors: USER_BASE + driver.descriptors, available: USER_BASE + driver.available, used: USER_BASE + driver.used }
    device.setAddresses({ ...addresses, [ring]: addresses[ring] + shift })
    expect(() => device.start()).toThrow(bad)
  })
})

describe('GuestMemory', () => {
  const region = (guestAt: number, size: number, user: number, offset = 0) => ({ guest: guestAt, size, user, offset })

  it('finds bytes on both sides of a border between regions', () => {
    guest.clear()
    guest.add(region(0, 8192, 0x10_0000), openAgain(memory.fd))
    guest.add(region(8192, 4096, 0x20_0000, 65_536), openAgain(memory.fd))
    memory.bytes.write('left', 8188)
    memory.bytes.write('right', 65_536)
    const parts: Buffer[] = []
    guest.slices(8188, 9, parts)
    expect(parts.map(String)).toEqual(['left', 'right'])
    expect(() => guest.slices(12_280, 16, [])).toThrow(bad)
    expect(() => guest.atUser(0x10_0000 + 8190, 4)).toThrow(bad)
  })

  it.each([
    ['overlap for the guest', region(GUEST_BASE + 4096, 4096, 0x1000)],
    ['overlap for the monitor', region(0, 4096, USER_BASE + MEMORY - 1)],
    ['are larger than their file', region(0, MEMORY + 4096, 0x1000)],
    ['are empty', region(0, 0, 0x1000)],
    ['end beyond 2^53', region(Number.MAX_SAFE_INTEGER - 1, 4096, 0x1000)],
  ])('refuses regions that %s', (_what, wrong) => expect(() => guest.add(wrong, openAgain(memory.fd))).toThrow(bad))

  it('refuses more regions than it has room for', () => {
    const add = (i: number): void => guest.add(region(i * 4096, 4096, i * 4096), openAgain(memory.fd))
    for (let i = 1; i < MAX_REGIONS; i++) add(i)
    expect(() => add(MAX_REGIONS)).toThrow(bad)
  })

  it('becomes zeros, and says so, when the monitor cuts its file short', () => {
    const parts: Buffer[] = []
    guest.slices(GUEST_BASE + 65_536, 16, parts)
    expect(guest.broken).toBe(false)
    ftruncateSync(memory.fd, 0)
    expect([...parts[0]!]).toEqual(Array(16).fill(0))
    expect(guest.broken).toBe(true)
    ftruncateSync(memory.fd, MEMORY) // for the driver's own mapping
  })

  it('would kill the process without its guard', () => {
    const addon = path.resolve(import.meta.dirname, '../../../build/nydus.node')
    const file = path.join('/dev/shm', `nydus-guard-${process.pid}`)
    const script = `const n = require(${JSON.stringify(addon)}), fs = require('fs'); const fd = fs.openSync(${JSON.stringify(file)}, 'w+'); fs.unlinkSync(${JSON.stringify(file)});
      fs.ftruncateSync(fd, 65536); const m = n.mmap(fd, 0, 65536, true); if (process.argv[1] === 'guard') n.guardMapping(m); fs.ftruncateSync(fd, 0); process.stdout.write(String(new Uint8Array(m)[4096]))`
    expect(spawnSync(process.execPath, ['-e', script, 'guard'], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '0' })
    expect(spawnSync(process.execPath, ['-e', script, 'bare'], { encoding: 'utf8' })).toMatchObject({ signal: 'SIGBUS', stdout: '' })
  })
})

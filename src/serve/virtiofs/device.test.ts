// A device and its successor: what the first one had under way when it was killed, the second one does, once.

import { openSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DriverMemory, DriverQueue, GUEST_BASE, USER_BASE } from '../../../test/support/virtio-driver.ts'
import { memoryRegion, memoryTable, MESSAGE_VERSION, VHOST_USER, vringAddress, vringFile, vringState } from '../../wire/vhost-user/message.ts'
import { VhostUserDevice } from './device.ts'
import { decodeDevice, encodeDevice } from './device-state.ts'

const SIZE = 8
const MEMORY = 2 ** 20
const QUEUE = 1

let memory: DriverMemory
let driver: DriverQueue
let device: VhostUserDevice

const again = (fd: number): number => openSync(`/proc/self/fd/${fd}`, 'r+')

function tell(request: number, payload: Uint8Array, fds: number[] = []): ReturnType<VhostUserDevice['handle']> {
  return device.handle({ header: { request, flags: MESSAGE_VERSION, size: payload.length }, payload: Buffer.from(payload), fds })
}

function startQueue(base = 0): void {
  tell(VHOST_USER.SET_VRING_NUM, vringState.encode({ index: QUEUE, value: SIZE }))
  tell(VHOST_USER.SET_VRING_BASE, vringState.encode({ index: QUEUE, value: base }))
  tell(VHOST_USER.SET_VRING_ADDR, vringAddress.encode({
    index: QUEUE, flags: 0, descriptors: USER_BASE + driver.descriptors, available: USER_BASE + driver.available, used: USER_BASE + driver.used,
  }))
  tell(VHOST_USER.SET_VRING_KICK, vringFile.encode({ index: QUEUE, flags: 0 }), [again(memory.fd)]) // any descriptor will do
  tell(VHOST_USER.SET_VRING_ENABLE, vringState.encode({ index: QUEUE, value: 1 }))
}

const ready: number[] = []
const newDevice = (): VhostUserDevice => new VhostUserDevice({ recorded: true }, { kickChanged() {}, ready: (queue) => ready.push(queue) })
const ring = (): VhostUserDevice['queues'][number]['ring'] => device.queues[QUEUE]!.ring

/** The device is killed: its successor gets what it had saved last, through a holder. */
function replace(): void {
  const { state, fds } = device.save()
  const kept = fds.map(again)
  device.reset()
  device = newDevice()
  ready.length = 0
  device.restore(decodeDevice(encodeDevice(state)), kept)
}

beforeEach(() => {
  memory = new DriverMemory(MEMORY)
  driver = new DriverQueue(memory, SIZE)
  device = newDevice()
  const region = memoryRegion.encode({ guest: GUEST_BASE, size: MEMORY, user: USER_BASE, offset: 0 })
  tell(VHOST_USER.SET_MEM_TABLE, Buffer.concat([memoryTable.encode({ count: 1 }), region]), [again(memory.fd)])
  startQueue()
})

afterEach(() => {
  device.reset()
  driver.close()
  memory[Symbol.dispose]()
})

describe('the successor of a device', () => {
  it('does again what was taken and not given back, then what has come since, and nothing twice', () => {
    for (const from of [0, 2, 4, 6]) driver.submit(driver.chain(Buffer.from('request'), 8, { from }).head)
    const taken = [ring().pop()!.head, ring().pop()!.head, ring().pop()!.head]
    ring().push(taken[1]!, 8)
    replace()
    expect(ready).toEqual([QUEUE])
    expect([ring().pop()?.head, ring().pop()?.head, ring().pop()?.head, ring().pop()]).toEqual([0, 4, 6, undefined])
    for (const head of [6, 0, 4]) ring().push(head, 8)
    replace()
    expect(ring().pop()).toBeUndefined()
    expect([1, 2, 3, 4].map(() => driver.takeUsed()?.id)).toEqual([2, 6, 0, 4])
    expect(driver.takeUsed()).toBeUndefined()
  })

  it('serves nothing that was stopped, and begins where the front end says when it is started again', () => {
    driver.submit(driver.chain(Buffer.from('request'), 8).head)
    expect(ring().pop()?.head).toBe(0)
    const answer = tell(VHOST_USER.GET_VRING_BASE, vringState.encode({ index: QUEUE, value: 0 }))
    if (!answer || answer instanceof Uint8Array || !('answer' in answer)) throw new Error('a queue is stopped when it is drained')
    expect(vringState.decode(answer.answer()).value).toBe(1)
    replace()
    expect([ready, device.queues[QUEUE]!.serving]).toEqual([[], false])
    startQueue(0) // as after a reset of the machine: the record of before does not count
    expect(ring().pop()?.head).toBe(0)
  })

  it('refuses a state whose memory it cannot have', () => {
    const { state } = device.save()
    const other = newDevice()
    expect(() => other.restore(state, [])).toThrow()
    other.reset()
  })
})

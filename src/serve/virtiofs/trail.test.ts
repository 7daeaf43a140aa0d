import { closeSync, openSync, readlinkSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { createTrail, readTrail, Trail } from './trail.ts'

const again = (fd: number): number => {
  const ends = new Int32Array(2)
  native().socketPair(true, ends)
  native().sendFds(ends[0]!, Buffer.from('x'), Int32Array.from([fd]))
  const fds = new Int32Array(1)
  native().receiveFds(ends[1]!, new Uint8Array(1), fds)
  for (const end of ends) closeSync(end)
  return fds[0]!
}

describe('what a device leaves', () => {
  it('is with one descriptor the newest state and all descriptors, for every successor, however many died before', () => {
    const ends = createTrail()
    const kept = again(ends.in) // the supervisor's
    const file = openSync(import.meta.filename, 'r')
    const trail = new Trail(ends, { isEmpty: true })
    for (let i = 0; i < 300; i++) trail.leave({ bytes: Buffer.from(`state ${i}`), fds: [file, file] })
    for (const fd of [ends.in, ends.out, file]) closeSync(fd) // the device is killed
    for (const round of [1, 2, 3]) {
      const { ends: next, device } = readTrail(again(kept))
      expect([round, Buffer.from(device.bytes).toString(), device.fds.length]).toEqual([round, 'state 299', 2])
      expect(device.fds.map((fd) => readlinkSync(`/proc/self/fd/${fd}`))).toEqual([import.meta.filename, import.meta.filename])
      for (const fd of [next.in, next.out, ...device.fds]) closeSync(fd)
    }
    const { ends: last, device } = readTrail(kept)
    new Trail(last, { isEmpty: false }).leave({ bytes: Buffer.from('after'), fds: [] })
    expect(Buffer.from(readTrail(again(last.in)).device.bytes).toString()).toBe('after')
    for (const fd of device.fds) closeSync(fd)
  })

  it('is an error when there is nothing', () => {
    const ends = createTrail()
    let failure: unknown
    try {
      readTrail(ends.in)
    } catch (error) {
      failure = error
    }
    expect(hasCode(failure, 'SERVE_BAD_STATE_FILE')).toBe(true)
    for (const fd of [ends.in, ends.out]) closeSync(fd)
  })
})

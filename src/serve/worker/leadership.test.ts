// Who leads, seen from one thread: waiting for real is tested through mounts.

import { describe, expect, it } from 'vitest'
import { callAll, createLeadershipMemory, helpCame, Leadership } from './leadership.ts'

const goOn = () => ({ ends: false })

describe('leadership', () => {
  it('has one leader; another leads after it was handed on', () => {
    const memory = createLeadershipMemory()
    const [first, second] = [new Leadership(memory, 0), new Leadership(memory, 1)]
    first.follow(goOn)
    let calls = 0
    second.follow(() => {
      if (calls++ === 1) first.handOn() // between looking for messages and sleeping: the wait must end at once
      if (calls < 3) callAll(memory)
      return { ends: calls > 5 }
    })
    expect([first.leads, second.leads, calls]).toEqual([false, true, 2])
  })

  it('says once that one more is wanted, when nobody sleeps who could take over', () => {
    const memory = createLeadershipMemory()
    const [first, second] = [new Leadership(memory, 0), new Leadership(memory, 1)]
    first.follow(goOn)
    expect(first.handOn()).toBe(true)
    second.follow(goOn)
    expect(second.handOn()).toBe(false)
    helpCame(memory)
    first.follow(goOn)
    expect(first.handOn()).toBe(true)
  })

  it('lets a follower go that is told to end', () => {
    const memory = createLeadershipMemory()
    new Leadership(memory, 0).follow(goOn)
    const second = new Leadership(memory, 1)
    second.follow(() => ({ ends: true }))
    expect(second.leads).toBe(false)
  })

  it('is not taken from another by handing on what one does not have', () => {
    const memory = createLeadershipMemory()
    const [first, second] = [new Leadership(memory, 0), new Leadership(memory, 1)]
    first.follow(goOn)
    second.handOn()
    let looked = 0
    second.follow(() => {
      callAll(memory)
      return { ends: looked++ > 0 }
    })
    expect([first.leads, second.leads]).toEqual([true, false])
  })
})

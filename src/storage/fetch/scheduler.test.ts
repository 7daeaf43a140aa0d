import { describe, expect, it } from 'vitest'
import { Scheduler, type Lane } from './scheduler.ts'

const { signal } = new AbortController()

/** Jobs that end when they are told to. */
function jobs(scheduler: Scheduler) {
  const started: string[] = []
  const ends = new Map<string, () => void>()
  const start = (name: string, lane: Lane, own = signal) =>
    scheduler.run(() => { started.push(name); return new Promise<string>((resolve) => ends.set(name, () => resolve(name))) }, { lane, signal: own })
  return {
    started, start,
    /** A job that a reader waits for. */
    read(name: string, own = signal) {
      const lane = scheduler.lane({ isExpected: true })
      scheduler.enter(lane)
      return start(name, lane, own).finally(() => scheduler.leave(lane))
    },
    prefetch: (name: string) => start(name, scheduler.lane({ isExpected: false })),
    expected: (name: string) => start(name, scheduler.lane({ isExpected: true })),
    async end(name: string) { ends.get(name)!(); await settle() },
  }
}
const settle = () => new Promise(setImmediate)

describe('Scheduler', () => {
  it('starts what somebody waits for before what nobody does', async () => {
    const { started, read, prefetch, end } = jobs(new Scheduler({ maxDemand: 1, maxPrefetch: 4 }))
    void read('read 1')
    void prefetch('prefetch 1')
    void read('read 2')
    await settle()
    expect(started).toEqual(['read 1'])
    await end('read 1')
    expect(started).toEqual(['read 1', 'read 2'])
    await end('read 2')
    expect(started).toEqual(['read 1', 'read 2', 'prefetch 1'])
  })

  it('lets a reader start at once while prefetches run', async () => {
    const { started, read, prefetch } = jobs(new Scheduler({ maxDemand: 2, maxPrefetch: 1 }))
    void prefetch('prefetch 1')
    void prefetch('prefetch 2')
    void read('read')
    await settle()
    expect(started).toEqual(['prefetch 1', 'read'])
  })

  it('starts a queued prefetch when somebody begins to wait for it', async () => {
    const scheduler = new Scheduler({ maxDemand: 2, maxPrefetch: 1 })
    const { started, read, start } = jobs(scheduler)
    const lane = scheduler.lane({ isExpected: false })
    void read('read')
    void start('prefetch', lane)
    await settle()
    expect(started).toEqual(['read'])
    scheduler.enter(lane)
    await settle()
    expect(started).toEqual(['read', 'prefetch'])
  })

  it('forgets a job whose caller left the queue', async () => {
    const { started, read, end } = jobs(new Scheduler({ maxDemand: 1, maxPrefetch: 1 }))
    const leaver = new AbortController()
    void read('read 1')
    const left = read('read 2', leaver.signal)
    leaver.abort(new Error('gone'))
    await expect(left).rejects.toThrow('gone')
    await end('read 1')
    expect(started).toEqual(['read 1'])
  })

  it('starts what is expected beside a read, the rest of the image after it', async () => {
    const { started, read, prefetch, expected, end } = jobs(new Scheduler({ maxPrefetch: 2 }))
    void read('read')
    void prefetch('rest')
    void expected('expected')
    await settle()
    expect(started).toEqual(['read', 'expected'])
    await end('read')
    expect(started).toEqual(['read', 'expected', 'rest'])
  })

  it('pauses in the middle what nobody waits for, until nobody waits for anything else or somebody does for it', async () => {
    const scheduler = new Scheduler({ maxPrefetch: 1 })
    const [wanted, tail, other] = [scheduler.lane({ isExpected: true }), scheduler.lane({ isExpected: false }), scheduler.lane({ isExpected: false })]
    expect(scheduler.pause(tail)).toBeUndefined()
    scheduler.enter(wanted)
    expect(scheduler.pause(wanted)).toBeUndefined()
    let goesOn = ''
    void scheduler.pause(tail)!.then(() => { goesOn += 'tail ' })
    void scheduler.pause(other)!.then(() => { goesOn += 'other ' })
    await settle()
    expect(goesOn).toBe('')
    scheduler.enter(tail)
    await settle()
    expect(goesOn).toBe('tail ')
    scheduler.leave(tail)
    scheduler.leave(wanted)
    await settle()
    expect(goesOn).toBe('tail other ')
  })

  it('lets what is expected use the line until bytes come that somebody waits for', () => {
    const scheduler = new Scheduler({ maxPrefetch: 1 })
    const [wanted, expected] = [scheduler.lane({ isExpected: true }), scheduler.lane({ isExpected: true })]
    scheduler.enter(wanted)
    expect(scheduler.pause(expected)).toBeUndefined()
    expect(scheduler.pause(wanted)).toBeUndefined()
    expect(scheduler.pause(expected)).toBeDefined()
    scheduler.leave(wanted)
    expect(scheduler.pause(expected)).toBeUndefined()
  })
})

import { describe, expect, it } from 'vitest'
import { Scheduler, type Lane } from './scheduler.ts'

const { signal } = new AbortController()

/** Jobs that end when they are told to. */
function jobs(scheduler: Scheduler) {
  const started: string[] = []
  const ends = new Map<string, () => void>()
  return {
    started,
    start: (name: string, lane: Lane, own = signal) => scheduler.run(() => { started.push(name); return new Promise<string>((resolve) => ends.set(name, () => resolve(name))) }, { lane, signal: own }),
    async end(name: string) { ends.get(name)!(); await new Promise(setImmediate) },
  }
}
const settle = () => new Promise(setImmediate)

describe('Scheduler', () => {
  it('starts what somebody waits for before what nobody does', async () => {
    const { started, start, end } = jobs(new Scheduler({ maxDemand: 1, maxPrefetch: 4 }))
    void start('read 1', { prefetch: false })
    void start('prefetch 1', { prefetch: true })
    void start('read 2', { prefetch: false })
    await settle()
    expect(started).toEqual(['read 1'])
    await end('read 1')
    expect(started).toEqual(['read 1', 'read 2'])
    await end('read 2')
    expect(started).toEqual(['read 1', 'read 2', 'prefetch 1'])
  })

  it('lets a reader start at once while prefetches run', async () => {
    const { started, start } = jobs(new Scheduler({ maxDemand: 2, maxPrefetch: 1 }))
    void start('prefetch 1', { prefetch: true })
    void start('prefetch 2', { prefetch: true })
    void start('read', { prefetch: false })
    await settle()
    expect(started).toEqual(['prefetch 1', 'read'])
  })

  it('starts a queued prefetch when somebody begins to wait for it', async () => {
    const scheduler = new Scheduler({ maxDemand: 2, maxPrefetch: 1 })
    const { started, start } = jobs(scheduler)
    const lane = { prefetch: true }
    void start('read', { prefetch: false })
    void start('prefetch', lane)
    await settle()
    expect(started).toEqual(['read'])
    scheduler.promote(lane)
    await settle()
    expect(started).toEqual(['read', 'prefetch'])
  })

  it('forgets a job whose caller left the queue', async () => {
    const { started, start, end } = jobs(new Scheduler({ maxDemand: 1, maxPrefetch: 1 }))
    const leaver = new AbortController()
    void start('read 1', { prefetch: false })
    const left = start('read 2', { prefetch: false }, leaver.signal)
    leaver.abort(new Error('gone'))
    await expect(left).rejects.toThrow('gone')
    await end('read 1')
    expect(started).toEqual(['read 1'])
  })
})

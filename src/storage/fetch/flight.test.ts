import { describe, expect, it } from 'vitest'
import { Flight } from './flight.ts'
import { Scheduler } from './scheduler.ts'

const { signal } = new AbortController()
const settle = () => new Promise(setImmediate)

/** A flight of chunks 1 to 4 whose fetch the test ends. */
function flying() {
  const scheduler = new Scheduler({ maxPrefetch: 1 })
  const forgotten: number[] = []
  const flight = new Flight([1, 2, 3, 4], { scheduler, isExpected: true, forget: (index) => forgotten.push(index) })
  let end = (_error?: Error): void => {}
  let own: AbortSignal | undefined
  const start = () => flight.start((inner) => new Promise((resolve, reject) => { own = inner; end = (error) => (error ? reject(error) : resolve()) }))
  return { flight, scheduler, forgotten, start, end: (error?: Error) => end(error), aborted: () => own!.aborted }
}
const wait = (flight: Flight, indices: number[], over: { signal?: AbortSignal; prefetch?: boolean } = {}) => flight.wait(indices, { signal, prefetch: false, ...over })

describe('Flight', () => {
  it('lets a reader go when its own chunks have landed, and flies on', async () => {
    const { flight, scheduler, start, aborted } = flying()
    const reading = wait(flight, [1, 2])
    start()
    expect(scheduler.isQuiet).toBe(false)
    flight.land(2, Uint8Array.of(2))
    flight.land(1, Uint8Array.of(1))
    expect(await reading).toEqual(new Map([[2, Uint8Array.of(2)], [1, Uint8Array.of(1)]]))
    expect(scheduler.isQuiet).toBe(true)
    expect(aborted()).toBe(false)
    expect(flight.isPending(3)).toBe(true)
  })

  it('copies what readers wait for: the buffer is used again', async () => {
    const { flight, start } = flying()
    const readings = [wait(flight, [1]), wait(flight, [1])]
    start()
    const shared = Buffer.from([7, 7])
    flight.land(1, shared.subarray(0, 1))
    shared.fill(0)
    for (const reading of readings) expect((await reading).get(1)).toEqual(Uint8Array.of(7))
  })

  it('is aborted when the last reader leaves, after its chunks were forgotten', async () => {
    const { flight, forgotten, start, aborted } = flying()
    const [first, second] = [new AbortController(), new AbortController()]
    const readings = [wait(flight, [1], { signal: first.signal }), wait(flight, [2, 3], { signal: second.signal })]
    start()
    first.abort(new Error('gone'))
    await expect(readings[0]).rejects.toThrow('gone')
    expect(aborted()).toBe(false)
    second.abort(new Error('gone too'))
    expect(forgotten).toEqual([1, 2, 3, 4])
    expect(aborted()).toBe(true)
    await expect(readings[1]).rejects.toThrow('gone too')
  })

  it('stays while a prefetch waits, whatever readers do', async () => {
    const { flight, scheduler, start, end, aborted } = flying()
    const prefetch = wait(flight, [1, 2, 3, 4], { prefetch: true })
    start()
    expect(scheduler.isQuiet).toBe(true)
    const leaver = new AbortController()
    const reading = wait(flight, [1], { signal: leaver.signal })
    leaver.abort(new Error('gone'))
    await expect(reading).rejects.toThrow('gone')
    expect(aborted()).toBe(false)
    end()
    expect(await prefetch).toEqual(new Map())
  })

  it('gives its error to those whose chunks have not landed', async () => {
    const { flight, start, end } = flying()
    const [early, late] = [wait(flight, [1]), wait(flight, [4])]
    start()
    flight.land(1, undefined)
    end(new Error('broken'))
    expect((await early).get(1)).toBeUndefined()
    expect((await late).get(4)).toEqual(new Error('broken'))
    await flight.done
    expect((await wait(flight, [4])).size).toBe(0)
    await settle()
  })
})

import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { inGroup, Limiter } from './limiter.ts'

const never = new AbortController().signal

describe('Limiter', () => {
  it('runs so many at a time, and frees places of what failed', async () => {
    const limiter = new Limiter(2)
    let [running, most] = [0, 0]
    const results = await Promise.allSettled(Array.from({ length: 9 }, (_, at) => limiter.run(never, async () => {
      most = Math.max(most, ++running)
      await delay(2)
      running--
      if (at % 3 === 0) throw new Error('fails')
    })))
    expect(most).toBe(2)
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(6)
  })

  it('does not begin what was aborted while it waited', async () => {
    const limiter = new Limiter(1)
    const abort = new AbortController()
    const first = limiter.run(never, () => delay(5))
    const second = limiter.run(abort.signal, async () => { throw new Error('must not run') })
    abort.abort(new Error('left'))
    await first
    await expect(second).rejects.toThrow('left')
    expect(await limiter.run(never, async () => 'free again')).toBe('free again')
  })
})

describe('inGroup', () => {
  it('throws the first failure after every task has ended', async () => {
    const ended: string[] = []
    const group = inGroup(never, async ({ start }) => {
      void start(async (signal) => {
        await delay(50, undefined, { signal }).catch(() => {})
        await delay(5)
        ended.push(signal.aborted ? 'aborted' : 'late')
      })
      void start(async () => {
        await delay(2)
        throw new Error('first')
      }).catch(() => {})
      return delay(80, 'result', {}).finally(() => ended.push('action')).catch(() => {})
    })
    const outcome = await Promise.race([group.catch((error: Error) => error.message), delay(2000, 'timeout')])
    expect(outcome).toBe('first')
    expect(ended).toEqual(['aborted', 'action'])
  })

  it('waits for tasks that nobody awaited', async () => {
    let done = false
    expect(await inGroup(never, async ({ start }) => {
      void start(async () => {
        await delay(10)
        done = true
      })
      return 'value'
    })).toBe('value')
    expect(done).toBe(true)
  })
})

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { BlobReader, ReadOptions } from '../backend/backend.ts'
import { hedgedRead, type HedgedRequest } from './hedge.ts'
import { LinkEstimate } from './link.ts'

beforeEach(() => { vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }) })
afterEach(() => { vi.useRealTimers() })

interface Attempt { readonly options: ReadOptions; resolve(bytes: Uint8Array): void; reject(error: Error): void }

/** A reader whose attempts the test answers. */
function asked(over: Partial<HedgedRequest> = {}) {
  const attempts: Attempt[] = []
  const reader: BlobReader = {
    size: async () => 0,
    read: (_offset, _length, options) => new Promise((resolve, reject) => { attempts.push({ options, resolve, reject }) }),
  }
  const budget = { running: 0, total: 0 }
  const leaver = new AbortController()
  const result = hedgedRead(reader, { link: new LinkEstimate(), budget, isLocal: false, offset: 0, length: 3, isWanted: () => true, signal: leaver.signal, ...over })
  return { attempts, budget, leaver, result }
}
const bytes = Uint8Array.of(1, 2, 3)

describe('hedgedRead', () => {
  it('asks once more when nothing comes, takes what is ready first and ends the other', async () => {
    const { attempts, budget, result } = asked()
    vi.advanceTimersByTime(900)
    expect(attempts).toHaveLength(1)
    vi.advanceTimersByTime(200)
    expect(attempts).toHaveLength(2)
    expect(budget).toEqual({ running: 1, total: 1 })
    attempts[1]!.resolve(bytes)
    expect(await result).toBe(bytes)
    expect(attempts[0]!.options.signal.aborted).toBe(true)
    expect(budget.running).toBe(0)
    vi.advanceTimersByTime(60_000)
    expect(attempts).toHaveLength(2)
  })

  it('is patient while bytes come, and while it makes the server wait itself', async () => {
    let goOn = (): void => {}
    const { attempts, result } = asked({ progress: (_, filled) => (filled === 2 ? new Promise((resolve) => { goOn = resolve }) : undefined) })
    for (let i = 0; i < 5; i++) {
      vi.advanceTimersByTime(900)
      void attempts[0]!.options.progress!(bytes, 1)
    }
    const paused = attempts[0]!.options.progress!(bytes, 2)
    vi.advanceTimersByTime(5000)
    expect(attempts).toHaveLength(1)
    goOn()
    await paused
    vi.advanceTimersByTime(1100)
    expect(attempts).toHaveLength(2)
    attempts[0]!.resolve(bytes)
    await result
  })

  it('leaves alone what nobody waits for, until somebody does', async () => {
    let isWanted = false
    const { attempts, result } = asked({ isWanted: () => isWanted })
    vi.advanceTimersByTime(5000)
    expect(attempts).toHaveLength(1)
    isWanted = true
    vi.advanceTimersByTime(1100)
    expect(attempts).toHaveLength(2)
    attempts[0]!.resolve(bytes)
    await result
  })

  it('fails when both fail, with the first error, and not before', async () => {
    const { attempts, result } = asked()
    vi.advanceTimersByTime(1100)
    attempts[0]!.reject(new Error('first'))
    await Promise.resolve()
    attempts[1]!.reject(new Error('second'))
    await expect(result).rejects.toThrow('first')
  })

  it('sends no third request, and no second one when many are under way', () => {
    const one = asked()
    vi.advanceTimersByTime(60_000)
    expect(one.attempts).toHaveLength(2)
    const busy = asked({ budget: { running: 2, total: 2 } })
    vi.advanceTimersByTime(60_000)
    expect(busy.attempts).toHaveLength(1)
  })

  it('ends both when the reader leaves', async () => {
    const { attempts, leaver, result } = asked()
    vi.advanceTimersByTime(1100)
    leaver.abort(new Error('gone'))
    await expect(result).rejects.toThrow('gone')
    expect(attempts.every(({ options }) => options.signal.aborted)).toBe(true)
  })
})

import { describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../../test/support/backends.ts'
import { CodedError } from '../../core/errors.ts'
import { BackendMetrics } from '../metrics.ts'
import { reliable, type RetryPolicy } from './reliable.ts'

const { signal } = new AbortController()
const BLOB = Buffer.from('0123456789')

function made(over: Partial<RetryPolicy> = {}) {
  const backend = new MemoryBackend([['b', BLOB]])
  const metrics = new BackendMetrics('memory')
  const pauses: number[] = []
  const policy = { retries: 3, timeoutMs: 0, random: () => 0.5, sleep: async (ms: number) => { pauses.push(ms) }, ...over }
  return { backend, metrics, pauses, reader: reliable(backend, policy, metrics).open('b') }
}
const failing = (times: number, error: Error) => () => { if (times-- > 0) throw error }

describe('reliable', () => {
  it('tries again, later each time, when the error may pass', async () => {
    const { backend, metrics, pauses, reader } = made()
    backend.before = failing(3, new CodedError('STORAGE_UNREACHABLE', 'down'))
    expect(await reader.read(2, 3, { signal })).toEqual(new Uint8Array(BLOB.subarray(2, 5)))
    expect(pauses).toEqual([75, 150, 300])
    expect(metrics).toMatchObject({ readCount: 4, readErrors: 3, readAmountTotal: 3 })
  })

  it('gives up after the last attempt, and at once for an error that stays', async () => {
    const passing = made()
    passing.backend.before = failing(9, new CodedError('STORAGE_UNREACHABLE', 'down'))
    await expect(passing.reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(passing.backend.requests).toHaveLength(4)
    const staying = made()
    staying.backend.before = failing(9, new CodedError('STORAGE_DENIED', 'no'))
    await expect(staying.reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_DENIED' })
    expect(staying.backend.requests).toHaveLength(1)
  })

  it('never passes on a short or long answer', async () => {
    for (const wrong of [(bytes: Uint8Array) => bytes.subarray(1), (bytes: Uint8Array) => Buffer.concat([bytes, bytes])]) {
      const { backend, reader } = made({ retries: 0 })
      backend.after = wrong
      await expect(reader.read(0, 4, { signal })).rejects.toMatchObject({ code: 'STORAGE_SHORT_READ' })
    }
  })

  it('ends an attempt that takes too long', async () => {
    const { backend, reader } = made({ retries: 1, timeoutMs: 20 })
    backend.before = () => new Promise(() => {})
    await expect(reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(backend.requests).toHaveLength(2)
  })

  it('leaves with the reader, which is no failure of the backend', async () => {
    const { backend, reader } = made()
    const leaver = new AbortController()
    backend.before = (_, inner) => new Promise((_resolve, reject) => inner.addEventListener('abort', () => reject(inner.reason)))
    const reading = reader.read(0, 1, { signal: leaver.signal })
    leaver.abort(new Error('gone'))
    await expect(reading).rejects.toThrow('gone')
    expect(backend.requests).toHaveLength(1)
  })

  it('goes on for as long as its patience lasts, however many attempts that are, and no longer', async () => {
    let time = 0
    const patient = made({ retries: 0, patienceMs: 10_000, now: () => time, sleep: async (ms) => { time += ms } })
    patient.backend.before = failing(Number.POSITIVE_INFINITY, new CodedError('STORAGE_UNREACHABLE', 'down'))
    await expect(patient.reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(time).toBeGreaterThan(8000)
    expect(time).toBeLessThanOrEqual(10_000)
    expect(patient.backend.requests.length).toBeGreaterThan(8)
  })

  it('tries a refusal three times more, for credentials change', async () => {
    const refused = made({ retries: 0, patienceMs: 10_000 })
    refused.backend.before = failing(3, new CodedError('STORAGE_DENIED', 'expired'))
    expect(await refused.reader.read(0, 1, { signal })).toHaveLength(1)
    expect(refused.pauses).toEqual([300, 600, 1200])
    refused.backend.before = failing(9, new CodedError('STORAGE_NOT_FOUND', 'gone'))
    await expect(refused.reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_NOT_FOUND' })
    expect(refused.backend.requests).toHaveLength(8)
  })

  it('leaves a server alone for as long as that asks, for all readers', async () => {
    let time = 0
    const { backend, pauses, reader } = made({ retries: 0, patienceMs: 14_000, now: () => time, sleep: async (ms) => { pauses.push(ms); time += ms } })
    backend.before = failing(1, new CodedError('STORAGE_UNREACHABLE', 'busy', { status: 429, retryAfterMs: 3000 }))
    await reader.read(0, 1, { signal })
    expect(pauses).toEqual([3000])
    backend.before = failing(1, new CodedError('STORAGE_UNREACHABLE', 'busy', { status: 429, retryAfterMs: 60_000 }))
    await expect(reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE' })
    expect(time).toBe(3000)
  })

  it('lets a slow answer go on for as long as bytes arrive, but not a trickle', async () => {
    const { backend, reader } = made({ retries: 0, timeoutMs: 400 })
    const sizes: number[] = []
    backend.pace = async (progress) => { for (let i = 1; i <= 4; i++) { await new Promise((resolve) => { setTimeout(resolve, 220) }); await progress(new Uint8Array(0), i * 100_000) } }
    await reader.read(0, 1, { signal, progress: (_, filled) => { sizes.push(filled) } })
    expect(sizes).toEqual([100_000, 200_000, 300_000, 400_000])
    backend.pace = async (progress) => { for (let i = 1; i <= 50; i++) { await new Promise((resolve) => { setTimeout(resolve, 40) }); await progress(new Uint8Array(0), i) } }
    await expect(reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_UNREACHABLE', message: expect.stringMatching(/fewer than \d+ bytes within 400 ms/) })
  })

  it('does not count the time in which the reader holds the bytes up', async () => {
    const { backend, reader } = made({ retries: 0, timeoutMs: 50 })
    backend.pace = async (progress) => { await progress(new Uint8Array(0), 1) }
    expect(await reader.read(0, 1, { signal, progress: () => new Promise((resolve) => { setTimeout(resolve, 200) }) })).toHaveLength(1)
  })
})

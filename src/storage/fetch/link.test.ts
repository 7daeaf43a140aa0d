import { describe, expect, it } from 'vitest'
import { KiB, MiB } from '../../core/units.ts'
import { LinkEstimate } from './link.ts'

const learned = (firstByteMs: number, bytesPerMs: number) => {
  const link = new LinkEstimate()
  for (let i = 0; i < 20; i++) link.record({ bytes: MiB, firstByteMs, durationMs: firstByteMs + MiB / bytesPerMs })
  return link
}

describe('LinkEstimate', () => {
  it('learns round trip and bandwidth', () => {
    const link = learned(50, 12_500)
    expect(link.roundTripMs).toBeCloseTo(50, 0)
    expect(link.bytesPerMs / 12_500).toBeCloseTo(1, 1)
  })

  it('reads over larger gaps the more a round trip costs, within limits', () => {
    expect(learned(0.1, 100_000).gap).toBe(16 * KiB)
    expect(learned(20, 12_500).gap).toBeGreaterThan(learned(5, 12_500).gap)
    expect(learned(300, 100_000).gap).toBe(256 * KiB)
  })

  it('learns no bandwidth from small answers, and forgets one hiccup', () => {
    const link = learned(50, 12_500)
    link.record({ bytes: 100, firstByteMs: 50, durationMs: 51 })
    expect(link.bytesPerMs / 12_500).toBeCloseTo(1, 1)
    link.record({ bytes: MiB, firstByteMs: 500, durationMs: 600 })
    for (let i = 0; i < 8; i++) link.record({ bytes: MiB, firstByteMs: 50, durationMs: 134 })
    expect(link.roundTripMs).toBeLessThan(75)
  })
})

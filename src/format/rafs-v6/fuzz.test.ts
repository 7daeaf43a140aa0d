import { describe, expect, it } from 'vitest'
import { fuzzBase, fuzzBootstraps } from '../../../test/support/fuzz-bootstrap.ts'
import { survives } from '../../../test/support/hostile.ts'
import { bootstrapOf } from '../../../test/support/vectors.ts'

const bases = ['v6-small-zstd', 'v6-small-chunk4k', 'merge-all-lists', 'v6-batch-4k-lz4', 'v6-prefetch-root', 'parent-oci', 'external-v6', 'only-metadata']
  .map((name) => fuzzBase(name, bootstrapOf(name).bytes))

describe('readers of a bootstrap', () => {
  it('answer damaged fields with coded errors only, and soon', () => {
    const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
    const { rounds, opened, slowestMs } = fuzzBootstraps(bases, { seed, durationMs: 1000 * Number(process.env['FUZZ_SECONDS'] ?? 2) })
    console.log(`seed ${seed}: ${rounds} bootstraps, ${Math.round(100 * opened / rounds)} % opened, slowest ${slowestMs.toFixed(0)} ms`)
    expect(opened / rounds, `seed ${seed}`).toBeGreaterThan(0.4)
    expect(slowestMs, `seed ${seed}`).toBeLessThan(5000) // of a machine that does other things too
  }, 30_000 + 1000 * Number(process.env['FUZZ_SECONDS'] ?? 2))

  it('would be told of an error without a code', () => {
    expect(() => survives(() => { throw new RangeError('Offset is outside the bounds of the DataView') }, 'control')).toThrow(/control/)
  })
})

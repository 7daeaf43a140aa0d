import { describe, expect, it } from 'vitest'
import { native } from './load.ts'

describe('arguments', () => {
  it('of the wrong type are a TypeError that names the function and the place', () => {
    // SAFETY: the wrong types are the point.
    const untyped = native() as unknown as Record<string, (...values: unknown[]) => unknown>
    expect(() => untyped['lz4Compress']!(Buffer.alloc(1), 'text')).toThrow(/lz4Compress: argument 2 is not a Uint8Array/)
    for (const [name, call] of Object.entries(untyped)) {
      if (['waitSetCreate', 'eventCreate', 'umask', 'flock', 'ownUmask'].includes(name)) continue // right with any numbers (the kernel ignores flock's LOCK_MAND)
      for (const values of [[], [{}], [null, null, null, null], [-1, -1, -1, -1, -1, -1, -1, -1, {}], [new Float32Array(1), new Float32Array(1)]]) {
        let answer: unknown
        try { answer = call(...values) } catch (error) { expect(error).toBeInstanceOf(TypeError); continue }
        if (typeof answer !== 'number' || answer >= 0) expect.fail(`${name}(${values.join()}) gave ${String(answer)}`)
      }
    }
  })
})

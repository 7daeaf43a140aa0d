import { describe, expect, it } from 'vitest'
import { type Access, AccessLog, createAccessMemory } from './access-log.ts'

const access = (offset: number): Access => ({ session: 1, serial: 3, nid: 2 ** 33 + 1, offset, length: 4096, opcode: 15, errno: 0, at: 1_700_000_000_123.5 })

describe('AccessLog', () => {
  it('gives what was appended, once, thread by thread', () => {
    const memory = createAccessMemory(2)
    const [mine, other] = [new AccessLog(memory, 0), new AccessLog(memory, 1)]
    mine.append(access(1))
    mine.append(access(2 ** 40))
    expect(new AccessLog(memory, 0).take()).toEqual({ accesses: [access(1), access(2 ** 40)], lost: 0 })
    expect(mine.take()).toEqual({ accesses: [], lost: 0 })
    expect(other.take().accesses).toEqual([])
  })

  it('forgets what does not fit, says how much, and goes on', () => {
    const log = new AccessLog(createAccessMemory(1), 0)
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 10_000; i++) log.append(access(i))
      const { accesses, lost } = log.take()
      expect(accesses.length + lost).toBe(10_000)
      expect(accesses.map(({ offset }) => offset)).toEqual(Array.from({ length: accesses.length }, (_, i) => i))
    }
  })
})

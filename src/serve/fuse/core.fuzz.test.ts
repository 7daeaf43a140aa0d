// Random and mutated requests of right and wrong lengths: a well-formed answer or none, never an exception.

import { expect, it } from 'vitest'
import { below, randomOf } from '../../../test/support/hostile.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { FUSE_OP, FUSE_OP_LIMIT } from '../../wire/fuse/opcode.ts'
import { REPLY_SLOT, REQUEST_SLOT } from './connection.ts'
import { FuseCore, OUTCOME } from './core.ts'
import { FileSystemTable } from './file-system-table.ts'

const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 1)
const SILENT: readonly number[] = [FUSE_OP.FORGET, FUSE_OP.BATCH_FORGET]
const LENGTHS = [0, 1, 4, 8, 16, 24, 40, 64, 128]

it('answers every request with a reply of the stated length and the same id, or with none', () => {
  const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
  const random = randomOf(seed)
  const word = (): number => below(random, 2 ** 32)
  const fileSystems = new FileSystemTable()
  fileSystems.mount(9, fileSystems.root.fs, [{ id: 2, name: 'a' }, { id: 3, name: 'b' }])
  const input = new Uint8Array(REQUEST_SLOT)
  const output = new Uint8Array(REPLY_SLOT)
  const core = new FuseCore(fileSystems, { xattrs: true, writable: false }, { uid: 0, gid: 0 }, input, output)
  let rounds = 0
  let succeeded = 0
  for (const end = Date.now() + SECONDS * 1000; Date.now() < end; rounds++) {
    const opcode = below(random, 50) === 0 ? word() : below(random, FUSE_OP_LIMIT)
    const size = below(random, 4) === 0 ? below(random, 200) : LENGTHS[below(random, LENGTHS.length)]!
    const small = below(random, 2) === 0
    const body = Uint8Array.from({ length: size }, () => (small && below(random, 8) > 0 ? 0 : below(random, 256)))
    const id = { uniqueLow: word(), uniqueHigh: word() }
    const root = below(random, 2) === 0
    input.set(inHeader.encode({ length: inHeader.size + size, opcode, ...id, nodeHigh: root ? 0 : below(random, 12), nodeLow: root ? 1 : below(random, 100), uid: 0, gid: 0, pid: 1, extensions: 0 }))
    input.set(body, inHeader.size)
    const truncated = below(random, 10) === 0
    const length = truncated ? below(random, inHeader.size) : inHeader.size + size
    const what = `FUZZ_SEED=${seed}, round ${rounds}, opcode ${opcode}, ${length} bytes`
    const outcome = core.handle(0, length, 0)
    if (truncated || SILENT.includes(opcode)) {
      if (outcome !== OUTCOME.none) expect.fail(`${what}: answered`)
      continue
    }
    if (opcode === FUSE_OP.INTERRUPT && outcome === OUTCOME.interrupt) continue
    const header = outHeader.decode(output)
    if (outcome !== OUTCOME.reply || header.length !== core.replyLength || header.uniqueLow !== id.uniqueLow || header.uniqueHigh !== id.uniqueHigh || header.error !== -core.errno) {
      expect.fail(`${what}: outcome ${outcome}, ${JSON.stringify(header)}`)
    }
    if (core.errno === 0) succeeded++
  }
  process.stdout.write(`FUSE core: FUZZ_SEED=${seed}, ${rounds} requests, ${Math.round(100 * succeeded / rounds)} % served\n`)
  expect(succeeded).toBeGreaterThan(rounds / 20)
}, 30_000 + SECONDS * 1000)

// FUSE requests, right and wrong ones, to the core over damaged images: a reply of the length it states or none, and no failure that nobody foresaw.

import { expect, it } from 'vitest'
import { subscribe } from '../../src/core/diagnostics.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { REPLY_SLOT, REQUEST_SLOT } from '../../src/serve/fuse/connection.ts'
import { FuseCore, OUTCOME } from '../../src/serve/fuse/core.ts'
import { FileSystemTable } from '../../src/serve/fuse/file-system-table.ts'
import { inHeader, outHeader } from '../../src/wire/fuse/header.ts'
import { FUSE_OP, FUSE_OP_LIMIT } from '../../src/wire/fuse/opcode.ts'
import { damage, fuzzBase } from '../support/fuzz-bootstrap.ts'
import { FUZZ_TIMEOUT, fuzz, valueOrCoded } from '../support/fuzz-run.ts'
import { below } from '../support/hostile.ts'
import { bootstrapOf } from '../support/vectors.ts'

const SERIAL = 9
const REQUESTS = 40
/** A nid counts these from the start of the metadata. */
const NID_UNIT = 32
const SILENT: readonly number[] = [FUSE_OP.FORGET, FUSE_OP.BATCH_FORGET]
/** Those that look at the image; others are a constant answer. */
const READING = [FUSE_OP.LOOKUP, FUSE_OP.GETATTR, FUSE_OP.READLINK, FUSE_OP.OPEN, FUSE_OP.READ, FUSE_OP.OPENDIR, FUSE_OP.READDIR, FUSE_OP.READDIRPLUS, FUSE_OP.GETXATTR, FUSE_OP.LISTXATTR, FUSE_OP.ACCESS, FUSE_OP.STATFS, FUSE_OP.LSEEK]

it('requests over damaged images are answered with replies of the stated length', async () => {
  const bases = ['v6-rich-zstd', 'v6-small-chunk4k', 'merge-all-lists', 'v6-prefetch-root', 'parent-oci', 'only-metadata'].map((name) => {
    const base = fuzzBase(name, bootstrapOf(name).bytes)
    const { metaOffset } = BootstrapView.open(base.bytes)
    return { ...base, nids: base.sites.flat().filter(({ struct }) => /Inode/.test(struct.name)).map(({ at }) => (at - metaOffset) / NID_UNIT) }
  })
  const unforeseen: string[] = []
  const end = subscribe('serve:request:error', ({ message }) => { if (!/^CodedError/.test(message)) unforeseen.push(message) })
  let [answered, served] = [0, 0]
  try {
    await fuzz('FUSE requests', { leastPassed: 0.5 }, async (random, note) => {
      const base = bases[below(random, bases.length)]!
      const { bytes, what } = damage(base, random)
      note(`${base.name}: ${what}`)
      const view = await valueOrCoded(() => BootstrapView.open(bytes))
      if (view === undefined) return false
      const fileSystems = new FileSystemTable()
      fileSystems.mount(SERIAL, { view, hasXattr: view.hasXattr, explicitIds: true, mutable: false, locate: () => false })
      const [input, output] = [new Uint8Array(REQUEST_SLOT), new Uint8Array(REPLY_SLOT)]
      const core = new FuseCore(fileSystems, { xattrs: true, writable: false }, { uid: 0, gid: 0 }, input, output)
      for (let i = 0; i < REQUESTS; i++) {
        const opcode = below(random, 5) > 0 ? READING[below(random, READING.length)]! : below(random, FUSE_OP_LIMIT + 5)
        const nid = below(random, 4) > 0 ? base.nids[below(random, base.nids.length)]! : below(random, 2 ** 32)
        const body = bodyOf(opcode, random)
        const id = { uniqueLow: below(random, 2 ** 32), uniqueHigh: i }
        const isRoot = below(random, 5) === 0
        input.set(inHeader.encode({ length: inHeader.size + body.length, opcode, ...id, nodeHigh: isRoot ? 0 : SERIAL, nodeLow: isRoot ? 1 : nid, uid: 0, gid: 0, pid: 1, extensions: 0 }))
        input.set(body, inHeader.size)
        const length = below(random, 30) === 0 ? below(random, inHeader.size + body.length) : inHeader.size + body.length
        note(`${base.name}: ${what}; request ${i}: opcode ${opcode}, node ${isRoot ? 1 : nid}, ${length} bytes ${body.toString('hex').slice(0, 100)}`)
        const outcome = core.handle(0, length, 0)
        if (unforeseen.length > 0) throw new Error(unforeseen[0])
        if (outcome !== OUTCOME.reply) continue
        const header = outHeader.decode(output)
        expect([header.length, header.uniqueLow, header.error]).toEqual([core.replyLength, id.uniqueLow, core.errno === 0 ? 0 : -core.errno])
        expect(SILENT.includes(opcode) || header.length < outHeader.size || header.length > output.length).toBe(false)
        answered++
        if (core.errno === 0) served++
      }
      return true
    })
  } finally {
    end()
  }
  process.stdout.write(`FUSE requests: ${answered} answered, ${Math.round(100 * served / answered)} % without an error\n`)
  expect(served).toBeGreaterThan(answered / 20)
}, FUZZ_TIMEOUT)

/** Names, sizes and offsets as a kernel could send them, or noise. */
function bodyOf(opcode: number, random: () => number): Buffer {
  const pick = (...values: readonly number[]): number => values[below(random, values.length)]!
  if (opcode === FUSE_OP.LOOKUP) return Buffer.from(`${['f', 'dir', 'x'.repeat(255), '..', '', '\xff'][below(random, 6)]}\0`, 'latin1')
  if (below(random, 4) === 0) return Buffer.from(Array.from({ length: below(random, 200) }, () => below(random, 256)))
  const body = Buffer.alloc(40)
  body.writeBigUInt64LE(BigInt(pick(0, 0, 1, 2, 4096, 2 ** 31, 2 ** 52)), 8)
  body.writeUInt32LE(pick(0, 1, 24, 4096, 131_072, 2 ** 20, 2 ** 32 - 1), 16)
  if (opcode === FUSE_OP.GETXATTR) return Buffer.concat([body.subarray(16, 24), Buffer.from('user.a\0')])
  if (opcode === FUSE_OP.LISTXATTR) return body.subarray(16, 24)
  return body
}

// Digests, checksums and codecs of the addon, against what npm and Node offer. Prints JSON: MB/s of CPU time (best of several rounds, the two
// sides in turn) and the ratio ours/theirs, for 1 MiB, 16 KiB, 4 KiB and 1 KiB a call. node bench/run.mjs native/codecs

import { createHash, randomBytes } from 'node:crypto'
import { blake3 } from '@napi-rs/blake-hash'
import { compress, crc32c, decompressInto, digestOf } from '../../src/native/codecs.ts'
import { native } from '../../src/native/load.ts'

const SIZES = [1 << 20, 16 << 10, 4 << 10, 1 << 10]
const ROUNDS = 9
const BYTES_A_ROUND = 16 << 20

function rate(run: () => unknown, size: number): number {
  const calls = Math.ceil(BYTES_A_ROUND / size)
  const before = process.cpuUsage()
  for (let i = 0; i < calls; i++) run()
  const { user, system } = process.cpuUsage(before)
  return calls * size / (user + system)
}

function compare(size: number, ours: () => unknown, theirs?: () => unknown) {
  let [best, other] = [0, 0]
  for (let round = 0; round < ROUNDS; round++) {
    best = Math.max(best, rate(ours, size))
    if (theirs !== undefined) other = Math.max(other, rate(theirs, size))
  }
  return { oursMBs: Math.round(best), ...(theirs && { theirsMBs: Math.round(other), ratio: Number((best / other).toFixed(2)) }) }
}

const noise = randomBytes(1 << 20)
const text = Buffer.alloc(1 << 20, Array.from({ length: 5000 }, (_, i) => `${(i * 2654435761 >>> 0).toString(36)} of the ${i % 97} `).join(''))
const digest = new Uint8Array(32)
const target = Buffer.alloc(2 << 20)

const results = SIZES.map((size) => {
  const [bytes, words] = [noise.subarray(0, size), text.subarray(0, size)]
  const [lz4, zstd] = ([1, 3] as const).map((compressor) => compress(words, { compressor })!)
  return {
    size,
    'blake3 / @napi-rs/blake-hash': compare(size, () => native().blake3(bytes, digest, 0), () => blake3(bytes)),
    'blake3 into a new Buffer / @napi-rs/blake-hash': compare(size, () => digestOf(bytes, 0), () => blake3(bytes)),
    'sha256 / node:crypto': compare(size, () => native().sha256(bytes, digest, 0), () => createHash('sha256').update(bytes).digest()),
    crc32c: compare(size, () => crc32c(bytes)),
    'lz4 compress': compare(size, () => native().lz4Compress(words, target)),
    'lz4 decompress': compare(size, () => decompressInto(lz4!, target, 1)),
    'zstd compress, level 3': compare(size, () => native().zstdCompress(words, target, 3)),
    'zstd decompress': compare(size, () => decompressInto(zstd!, target, 3)),
  }
})
process.stdout.write(`${JSON.stringify({ bench: 'native/codecs', node: process.version, unit: 'MB/s of CPU time', results }, null, 2)}\n`)

// The dm-verity hash tree of a disk, behind its data.
// COMPAT: what is left of the last hash block of a level is filled with the digest of 4096 zero bytes, as upstream does; veritysetup, and the kernel's
// dm-verity, read only the digests that stand for something.

import { read } from 'node:fs'
import { promisify } from 'node:util'
import { CodedError } from '../../core/errors.ts'
import { MiB, roundUp } from '../../core/units.ts'
import { VERITY_DIGEST_SIZE, VERITY_HASH_BLOCK_SIZE, verityLevels } from '../../format/verity/hash-tree.ts'
import { DIGESTER, digestOf } from '../../native/codecs.ts'
import { native } from '../../native/load.ts'
import type { SparseFile } from './sparse-file.ts'

const readLater = promisify(read)

export interface VerityOptions {
  /** Bytes of a data block. */
  readonly blockSize: number
  /** Data blocks, from the start of the file. */
  readonly blocks: number
  /** Stretches that are hashed at once. */
  readonly threads: number
  readonly signal: AbortSignal
}

export interface VerityTree {
  /** Of the tree in the file. */
  readonly offset: number
  readonly root: Buffer
}

/** LIMIT: hashed in one crossing. Stands for whole hash blocks of digests, also of data blocks of 512 bytes. */
const STRETCH = 4 * MiB
const fillerDigest = (): Buffer => digestOf(new Uint8Array(VERITY_HASH_BLOCK_SIZE), DIGESTER.sha256)

/** Hashes the disk in `file` and writes the tree behind it. BUILD_OUTPUT. */
export async function writeVerity(file: SparseFile, { blockSize, blocks, threads, signal }: VerityOptions): Promise<VerityTree> {
  const offset = roundUp(blocks * blockSize, VERITY_HASH_BLOCK_SIZE)
  let below = { offset: 0, unit: blockSize, length: blocks * blockSize }
  for (const level of verityLevels(blocks)) {
    const start = offset + level.offset
    await hashLevel(file, below, { start, threads, signal })
    await fill(file, start + level.digests * VERITY_DIGEST_SIZE, start + level.blocks * VERITY_HASH_BLOCK_SIZE)
    below = { offset: start, unit: VERITY_HASH_BLOCK_SIZE, length: level.blocks * VERITY_HASH_BLOCK_SIZE }
  }
  return { offset, root: digestOf(await readWhole(file, below.offset, below.length), DIGESTER.sha256) }
}

/** Writes the digest of each unit of `below` from `start` on. */
async function hashLevel(file: SparseFile, below: { readonly offset: number; readonly unit: number; readonly length: number }, { start, threads, signal }: { readonly start: number; readonly threads: number; readonly signal: AbortSignal }): Promise<void> {
  let next = 0
  const hashNext = async () => {
    for (let at = next; at < below.length; at = next) {
      next = at + STRETCH
      signal.throwIfAborted()
      const bytes = await readWhole(file, below.offset + at, Math.min(STRETCH, below.length - at))
      const count = bytes.length / below.unit
      const slices = new Uint32Array(2 * count)
      for (let i = 0; i < count; i++) {
        slices[2 * i] = i * below.unit
        slices[2 * i + 1] = below.unit
      }
      const digests = Buffer.allocUnsafeSlow(count * VERITY_DIGEST_SIZE)
      await native().hashSlices(bytes, slices, DIGESTER.sha256, digests, new Uint32Array(count))
      await file.write(digests, start + (at / below.unit) * VERITY_DIGEST_SIZE)
    }
  }
  await Promise.all(Array.from({ length: threads }, hashNext))
}

async function fill(file: SparseFile, from: number, to: number): Promise<void> {
  const filler = Buffer.alloc(to - from, fillerDigest())
  await file.write(filler, from)
}

async function readWhole(file: SparseFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length)
  for (let done = 0; done < length;) {
    const { bytesRead } = await readLater(file.fd, bytes, done, length - done, offset + done)
    if (bytesRead === 0) throw new CodedError('BUILD_OUTPUT', `the disk ends before ${offset + length}: somebody else cut it short`, { offset, length })
    done += bytesRead
  }
  return bytes
}

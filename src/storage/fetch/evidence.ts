// By what a decompressed chunk is recognised as the right one: the digest in the image's chunk table, or in the blob's own digest array, and the
// checksum in the blob's chunk information. All that there is must hold.

import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import type { DigesterNumber } from '../../native/addon.ts'
import { DIGEST_SIZE, DIGESTER } from '../../native/codecs.ts'
import { native } from '../../native/load.ts'

/** A chunk's bytes in a buffer. */
export interface Slice { readonly index: number; readonly offset: number; readonly size: number }

/** What chunks hash to: 32 bytes each, and a checksum each or none. */
export interface Hashes { readonly digests: Buffer; readonly crcs: Uint32Array }

/** What a blob's chunks must hash to, and the checking of many at once. */
export class Evidence {
  readonly #view: BootstrapView
  readonly #blobIndex: number
  readonly #layout: ChunkInfoArray
  /** What its digests are made with. */
  readonly digester: DigesterNumber
  readonly #lenient: boolean
  #inlined: Uint8Array | undefined

  /** `lenient`: chunks of which nothing is known pass. */
  constructor(view: BootstrapView, blobIndex: number, layout: ChunkInfoArray, { lenient = false }: { readonly lenient?: boolean } = {}) {
    this.#lenient = lenient
    this.#view = view
    this.#blobIndex = blobIndex
    this.#layout = layout
    this.digester = DIGESTER[view.blobs[blobIndex]!.digester]
  }

  /** Whether there is anything that tells chunk `index` from wrong bytes. */
  covers(index: number): boolean {
    return this.#layout.hasCrc32(index) || this.#digest(index) !== undefined
  }

  /** Adds the blob's own digest array, 32 bytes a chunk. */
  addInlined(digests: Uint8Array): void {
    this.#inlined = digests
  }

  /** The slices of `buffer` that are not what the evidence says, or for which there is none. Hashes off the main thread. */
  async refute(buffer: Uint8Array, slices: readonly Slice[]): Promise<Set<number>> {
    const hashes = this.room(slices)
    const places = new Uint32Array(2 * slices.length)
    for (let i = 0; i < slices.length; i++) {
      places[2 * i] = slices[i]!.offset
      places[2 * i + 1] = slices[i]!.size
    }
    await native().hashSlices(buffer, places, this.digester, hashes.digests, hashes.crcs)
    return this.differing(slices, hashes)
  }

  /** Room for what `slices` hash to. A checksum costs a third of a digest, and is computed only where there is something to compare it with. */
  room(slices: readonly Slice[]): Hashes {
    return { digests: Buffer.allocUnsafeSlow(slices.length * DIGEST_SIZE), crcs: new Uint32Array(slices.some(({ index }) => this.#layout.hasCrc32(index)) ? slices.length : 0) }
  }

  /** The chunks that are not what the evidence says, or for which there is none, by what they hash to. */
  differing(slices: readonly Slice[], { digests, crcs }: Hashes): Set<number> {
    const wrong = new Set<number>()
    for (let i = 0; i < slices.length; i++) {
      const { index } = slices[i]!
      const digest = this.#digest(index)
      const crc = crcs.length === 0 ? undefined : this.#layout.crc32(index)
      const digestHolds = digest === undefined || digests.compare(digest, 0, DIGEST_SIZE, i * DIGEST_SIZE, (i + 1) * DIGEST_SIZE) === 0
      const crcHolds = crc === undefined || crc === crcs[i]
      if (!digestHolds || !crcHolds || (!this.#lenient && digest === undefined && crc === undefined)) wrong.add(index)
    }
    return wrong
  }

  // COMPAT: `merge -C` writes zero digests (spec-rafs.md A.6); nothing hashes to that.
  #digest(index: number): Uint8Array | undefined {
    const table = this.#view.chunkTable
    const row = table.rowOf(this.#blobIndex, index)
    const fromTable = row < 0 ? undefined : table.digest(row)
    if (fromTable !== undefined && !isZero(fromTable)) return fromTable
    return this.#inlined?.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE)
  }
}

function isZero(digest: Uint8Array): boolean {
  return digest[0] === 0 && digest.every((byte) => byte === 0)
}

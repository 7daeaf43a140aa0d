// nydus-ts/conformance: what every storage backend must do, ours and anybody's. No test runner is needed: each case is a name and a function
// that throws. docs/backends.md shows a backend of ten lines that passes.

import assert from 'node:assert/strict'
import { createCipheriv, createHash } from 'node:crypto'
import { isCoded } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import type { BlobBackend, BlobReader } from '../storage/index.ts'

export type { BlobBackend, BlobReader, ReadOptions } from '../storage/index.ts'

/** A backend that holds exactly `blobs` (by id: the sha256 of the content in hexadecimal), and how to get rid of what it lies on. */
export type MakeBackend = (blobs: ReadonlyMap<string, Uint8Array>) => Promise<{ readonly backend: BlobBackend; readonly dispose?: () => PromiseLike<void> }>

export interface ConformanceOptions {
  /** Places that hold one blob under any id. */
  readonly holdsOneBlob?: boolean
  /** Lengths of blobs are multiples of so many bytes (sectors); default 1. */
  readonly lengthUnit?: number
}

export interface ConformanceCase {
  readonly name: string
  /** Throws when the backend breaks the rule. */
  run(): Promise<void>
}

export interface ConformanceSuite {
  readonly cases: readonly ConformanceCase[]
  /** Closes the backend; after the last case. */
  close(): Promise<void>
}

/** Reads of the large blob: from where, how many bytes. Negative: from its end. */
const READS = [[0, 1], [0, 4096], [1, 1], [4095, 2], [1_234_567, 65_536], [0, Number.POSITIVE_INFINITY], [-1, 1], [-100, 100]] as const
/** Ranges that leave the large blob, counted from its end. */
const BEYOND = [[-1, 2], [0, 1], [4096, 4096]] as const

/** The cases for the backend that `make` makes when the first of them runs. */
export function backendConformance(make: MakeBackend, { holdsOneBlob = false, lengthUnit = 1 }: ConformanceOptions = {}): ConformanceSuite {
  const large = content('large', 3 * MiB + 17, lengthUnit)
  const small = content('small', 1, lengthUnit)
  const [largeId, smallId] = [large, small].map(idOf) as [string, string] // SAFETY: one for each
  const { signal } = new AbortController()
  let made: ReturnType<MakeBackend> | undefined
  const backend = async (): Promise<BlobBackend> => (await (made ??= make(new Map(holdsOneBlob ? [[largeId, large]] : [[largeId, large], [smallId, small]])))).backend
  const opened = async (id = largeId): Promise<BlobReader> => (await backend()).open(id)
  const cases: ConformanceCase[] = []
  const rule = (name: string, run: () => Promise<void>): void => void cases.push({ name, run })

  rule('has a name', async () => assert.match((await backend()).type, /^\S+$/))

  rule('knows how long a blob is', async () => {
    assert.equal(await (await opened()).size({ signal }), large.length)
    if (!holdsOneBlob) assert.equal(await (await opened(smallId)).size({ signal }), small.length)
  })

  for (const [from, count] of READS) {
    const offset = from < 0 ? large.length + from : from
    const length = Math.min(count, large.length)
    rule(`reads exactly ${length} bytes from ${offset}`, async () => sameBytes(await (await opened()).read(offset, length, { signal }), large.subarray(offset, offset + length)))
  }

  rule('reads many ranges at once, of two blobs, for readers and for a prefetch', async () => {
    const reader = await opened()
    const parts = Promise.all(Array.from({ length: 40 }, async (_, i) => sameBytes(await reader.read(i * 50_000, 50_000, { signal, prefetch: i % 2 === 1 }), large.subarray(i * 50_000, (i + 1) * 50_000))))
    const other = holdsOneBlob ? undefined : (await opened(smallId)).read(0, 1, { signal }).then((bytes) => sameBytes(bytes, small.subarray(0, 1)))
    await Promise.all([parts, other])
  })

  rule('gives bytes that are the caller\'s own', async () => {
    const reader = await opened();
    (await reader.read(0, 64, { signal })).fill(0)
    sameBytes(await reader.read(0, 64, { signal }), large.subarray(0, 64))
  })

  for (const [from, length] of [...BEYOND, [-large.length, large.length + 1] as const]) {
    rule(`fails with a code for ${length} bytes from ${large.length + from}, which leave the blob`, async () => {
      const reader = await opened()
      await refuses(reader.read(large.length + from, length, { signal }), /^STORAGE_(SHORT_READ|UNREACHABLE)$/)
    })
  }

  if (!holdsOneBlob) {
    rule('says STORAGE_NOT_FOUND of a blob that is not there, at the first read and not before', async () => {
      const reader = await opened(idOf(Buffer.from('nobody has this')))
      await refuses(reader.read(0, 1, { signal }), /^STORAGE_NOT_FOUND$/)
      await refuses(reader.size({ signal }), /^STORAGE_NOT_FOUND$/)
    })
  }

  rule('ends with the reason of a reader who left', async () => {
    const reader = await opened()
    const reason = new Error('left')
    await assert.rejects(reader.read(0, 1, { signal: AbortSignal.abort(reason) }), reason)
    const leaver = new AbortController()
    const reading = reader.read(0, large.length, { signal: leaver.signal })
    leaver.abort(reason)
    await reading.then((bytes) => sameBytes(bytes, large), (error: unknown) => assert.equal(error, reason)) // it may have been quick
    sameBytes(await reader.read(0, 1, { signal }), large.subarray(0, 1))
  })

  const close = async (): Promise<void> => {
    if (made === undefined) return
    const { backend: last, dispose } = await made
    await last.close()
    await dispose?.()
  }
  return { cases, close }
}

function idOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Bytes that no two places share, the same in each run. */
function content(seed: string, length: number, unit: number): Buffer {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(Math.ceil(length / unit) * unit))
}

// Not deepEqual: its message for a wrong megabyte is a megabyte.
function sameBytes(got: Uint8Array, want: Uint8Array): void {
  assert.equal(got.length, want.length, 'the number of bytes')
  assert.ok(Buffer.compare(got, want) === 0, `other bytes, from ${got.findIndex((byte, i) => byte !== want[i])} on`)
}

async function refuses(reading: Promise<unknown>, code: RegExp): Promise<void> {
  const error = await reading.then(() => undefined, (reason: unknown) => reason)
  assert.ok(isCoded(error), `wanted an error with a code ${code.source}, got ${String(error)}`)
  assert.match(error.code, code)
}

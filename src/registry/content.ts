// Verified byte streams: digests and sizes checked on the way, with nothing kept but the running hash.

import { createHash } from 'node:crypto'
import { CodedError } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import type { Descriptor } from '../format/oci/descriptor.ts'
import { splitDigest, type Digest, type DigestAlgorithm } from '../format/oci/digest.ts'
import type { BlobRange, ImageSource } from './types.ts'

/** LIMIT: SPEC distribution-spec v1.1 recommends registries to accept manifests of 4 MiB; nothing larger is a manifest. */
export const MAX_MANIFEST_SIZE = 4 * MiB

/** The digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
}

/** REGISTRY_PROTOCOL for a manifest that no registry would take. */
export function checkManifestSize(bytes: Uint8Array): void {
  if (bytes.length > MAX_MANIFEST_SIZE) throw new CodedError('REGISTRY_PROTOCOL', `manifest of ${bytes.length} bytes: registries take at most ${MAX_MANIFEST_SIZE}`, { size: bytes.length })
}

/** REGISTRY_DIGEST_MISMATCH for `what`. */
export function mismatch(what: string, want: string, got: string): CodedError {
  return new CodedError('REGISTRY_DIGEST_MISMATCH', `${what}: expected ${want}, got ${got}`, { want, got })
}

/** Passes `source` on and checks it: at most `size` bytes at any time, exactly `size` bytes with `digest` at the end, else REGISTRY_DIGEST_MISMATCH. */
export async function* verified(source: AsyncIterable<Uint8Array>, { digest, size }: Pick<Descriptor, 'digest' | 'size'>): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash(splitDigest(digest).algorithm)
  let length = 0
  for await (const chunk of source) {
    length += chunk.length
    if (length > size) throw mismatch(digest, `${size} bytes`, 'more')
    hash.update(chunk)
    yield chunk
  }
  if (length !== size) throw mismatch(digest, `${size} bytes`, `${length}`)
  const got = hash.digest('hex')
  if (got !== splitDigest(digest).hex) throw mismatch(`content of ${size} bytes`, digest, got)
}

/** Exactly `length` bytes out of `source`; REGISTRY_DIGEST_MISMATCH when there are fewer, and not one byte more. */
export async function* exactly(source: AsyncIterable<Uint8Array>, { what, length }: { what: string; length: number }): AsyncGenerator<Uint8Array, void, undefined> {
  let left = length
  for await (const chunk of source) {
    if (left === 0) return
    const part = chunk.length > left ? chunk.subarray(0, left) : chunk
    left -= part.length
    yield part
  }
  if (left > 0) throw mismatch(what, `${length} bytes`, `${length - left}`)
}

/** The part of a blob that `range` names, clamped to it; `whole` when its digest can be checked. FORMAT_OUT_OF_RANGE when it lies outside. */
export function rangeOf(descriptor: Pick<Descriptor, 'digest' | 'size'>, range: Omit<BlobRange, 'signal'>): { offset: number; length: number; whole: boolean } {
  const offset = range.offset ?? 0
  const length = range.length ?? descriptor.size - offset
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > descriptor.size) {
    throw new CodedError('FORMAT_OUT_OF_RANGE', `range ${offset}+${length} of ${descriptor.digest}, which has ${descriptor.size} bytes`)
  }
  return { offset, length, whole: offset === 0 && length === descriptor.size }
}

/** Collects `source`; REGISTRY_PROTOCOL beyond `limit` bytes. */
export async function collect(source: AsyncIterable<Uint8Array>, limit: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const chunk of source) {
    length += chunk.length
    if (length > limit) throw new CodedError('REGISTRY_PROTOCOL', `content is longer than ${limit} bytes`, { limit })
    parts.push(chunk)
  }
  return Buffer.concat(parts, length)
}

/** A small blob (a config) in memory, verified. REGISTRY_PROTOCOL when the descriptor announces more than `limit` bytes. */
export async function readBlob(source: ImageSource, descriptor: Descriptor, { limit = MAX_MANIFEST_SIZE, signal }: { limit?: number; signal: AbortSignal }): Promise<Uint8Array> {
  if (descriptor.size > limit) throw new CodedError('REGISTRY_PROTOCOL', `${descriptor.digest} announces ${descriptor.size} bytes where at most ${limit} are sensible`, { limit })
  return collect(source.openBlob(descriptor, { signal }), limit)
}

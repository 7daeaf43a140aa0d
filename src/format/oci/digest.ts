// Content digests as OCI writes them: `algorithm:hex`.
// SPEC: opencontainers/image-spec descriptor.md "Digests"; only the two registered algorithms that registries use.

import { CodedError, foreignText } from '../../core/errors.ts'

/** A digest in its text form, e.g. `sha256:9f86…` (lower-case hex of the algorithm's length). Made by `asDigest` only. */
export type Digest = `${DigestAlgorithm}:${string}`
export type DigestAlgorithm = 'sha256' | 'sha512'

const PATTERN = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

/** Whether `text` is a well-formed digest of a supported algorithm. */
export function isDigest(text: string): text is Digest {
  return PATTERN.test(text)
}

/** `text`, checked. Throws FORMAT_INVALID; the message holds the (shortened) text and `what`, the thing it belongs to. */
export function asDigest(text: string, what = 'digest'): Digest {
  if (!isDigest(text)) throw new CodedError('FORMAT_INVALID', `${what}: "${foreignText(text)}" is no sha256 or sha512 digest`)
  return text
}

/** The two halves of a digest. */
export function splitDigest(digest: Digest): { readonly algorithm: DigestAlgorithm; readonly hex: string } {
  const colon = digest.indexOf(':')
  return { algorithm: digest.startsWith('sha512') ? 'sha512' : 'sha256', hex: digest.slice(colon + 1) }
}

/** The digest of a sha256 sum in lower-case hex; nydus blob ids are such sums. Throws FORMAT_INVALID. */
export function sha256Digest(hex: string): Digest {
  return asDigest(`sha256:${hex}`)
}

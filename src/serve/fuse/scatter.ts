// Requests and replies as lists of segments, which is how virtqueues hold them. /dev/fuse has one segment and does without.

import { CodedError } from '../../core/errors.ts'

/**
 * Copies the segments of a request into `into` at `at`; returns the request's length. A request to a read-only file system is a header
 * and a name at most, so one copy is cheaper than a decoder that works across segments.
 * @throws SERVE_BAD_REQUEST when they do not fit
 */
export function gather(segments: readonly Uint8Array[], into: Uint8Array, at: number): number {
  let end = at
  for (const segment of segments) {
    if (segment.length > into.length - end) throw new CodedError('SERVE_BAD_REQUEST', 'request is longer than its buffer', { room: into.length - at })
    into.set(segment, end)
    end += segment.length
  }
  return end - at
}

/** Copies `bytes` over the segments of a reply, in order. @throws SERVE_BAD_REQUEST when the segments are too short for it */
export function scatter(bytes: Uint8Array, segments: readonly Uint8Array[]): void {
  let done = 0
  for (const segment of segments) {
    const part = bytes.subarray(done, done + segment.length)
    segment.set(part)
    done += part.length
  }
  if (done < bytes.length) throw new CodedError('SERVE_BAD_REQUEST', 'reply does not fit the buffers for it', { bytes: bytes.length, room: done })
}

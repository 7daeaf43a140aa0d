// The record of requests under way, in memory that front end and back end share: it outlives a back end that is killed.
// SPEC: QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", split virtqueue.

import { reserved, struct, u16, u64, u8 } from '../../core/struct.ts'

export const inflightQueue = struct('VhostInflightQueue', 16, [
  [ 0, 'features',      u64, 'features: 0'],
  [ 8, 'version',       u16, 'version: 1; 0 is a region that nobody has used'],
  [10, 'entries',       u16, 'desc_num: entries of the queue'],
  [12, 'lastBatchHead', u16, 'last_batch_head: the chain that was given back last'],
  [14, 'usedIndex',     u16, 'used_idx: of the used ring, after it was given back and struck out here'],
])
export const INFLIGHT_VERSION = 1

/** One for each descriptor, behind the queue's head. */
export const inflightDescriptor = struct('VhostInflightDescriptor', 16, [
  [ 0, 'inflight',      u8,  'inflight: 1 while the chain that begins here is under way'],
  [ 1, '_padding',      reserved(5), 'padding'],
  [ 6, 'next',          u16, 'next: not used by a device that gives chains back one by one'],
  [ 8, 'counter',       u64, 'counter: in the order they were taken'],
])

/** A queue's region begins at a multiple of this. */
const INFLIGHT_ALIGNMENT = 64

/** Bytes of the region of a queue of `entries`. */
export function inflightSize(entries: number): number {
  return (inflightQueue.size + entries * inflightDescriptor.size + INFLIGHT_ALIGNMENT - 1) & -INFLIGHT_ALIGNMENT
}

// What every FUSE message begins with.
// SPEC: linux include/uapi/linux/fuse.h. 64-bit ids are two words here: they are opaque, and a bigint a request costs more than the request.

import { i32, reserved, struct, u16, u32, type Decoded } from '../../core/struct.ts'

export type InHeader = Decoded<typeof inHeader>
export const inHeader = struct('FuseInHeader', 40, [
  [ 0, 'length',       u32, 'len: of the whole request'],
  [ 4, 'opcode',       u32, 'opcode: see FUSE_OP'],
  [ 8, 'uniqueLow',    u32, 'unique: opaque; bit 0 of an INTERRUPT, bit 63 of a resent request'],
  [12, 'uniqueHigh',   u32, 'unique: high word'],
  [16, 'nodeLow',      u32, 'nodeid: 1 is the root'],
  [20, 'nodeHigh',     u32, 'nodeid: high word'],
  [24, 'uid',          u32, 'uid'],
  [28, 'gid',          u32, 'gid'],
  [32, 'pid',          u32, 'pid'],
  [36, 'extensions',   u16, 'total_extlen: extensions after the body, in units of 8 bytes'],
  [38, '_padding',     reserved(2), 'padding'],
])

export type OutHeader = Decoded<typeof outHeader>
export const outHeader = struct('FuseOutHeader', 16, [
  [ 0, 'length',       u32, 'len: of the whole reply'],
  [ 4, 'error',        i32, 'error: negative errno, or the code of a notification'],
  [ 8, 'uniqueLow',    u32, 'unique: of the request, 0 for a notification'],
  [12, 'uniqueHigh',   u32, 'unique: high word'],
])

// What a server tells the kernel unasked: that it must not go on believing what it was told before.
// SPEC: linux include/uapi/linux/fuse.h; fs/fuse/dev.c fuse_notify_inval_*.

import { struct, u32, u64 } from '../../core/struct.ts'

/** After it: the name and a NUL, which `nameLength` does not count. */
export const notifyInvalEntryOut = struct('FuseNotifyInvalEntryOut', 16, [
  [ 0, 'parentLow',    u32, 'parent: node id of the directory'],
  [ 4, 'parentHigh',   u32, 'parent: high word'],
  [ 8, 'nameLength',   u32, 'namelen'],
  [12, 'flags',        u32, 'flags: FUSE_EXPIRE_ONLY; ignored before Linux 6.2'],
])

export const notifyInvalInodeOut = struct('FuseNotifyInvalInodeOut', 24, [
  [ 0, 'nodeLow',      u32, 'ino: node id'],
  [ 4, 'nodeHigh',     u32, 'ino: high word'],
  [ 8, 'offset',       u64, 'off: first byte whose page is dropped; negative drops attributes only'],
  [16, 'length',       u64, 'len: 0 or less for "to the end"'],
])

/** The name is asked for again before it is used; what is known below it stays until then. */
export const FUSE_EXPIRE_ONLY = 1

// Attributes, lookups and what forgets them.
// SPEC: linux include/uapi/linux/fuse.h.

import { bytes, reserved, struct, u32, u64, type Decoded } from '../../core/struct.ts'

export type Attr = Decoded<typeof attr>
export const attr = struct('FuseAttr', 88, [
  [ 0, 'inoLow',         u32, 'ino: what st_ino shows'],
  [ 4, 'inoHigh',        u32, 'ino: high word'],
  [ 8, 'sizeLow',        u32, 'size: bytes'],
  [12, 'sizeHigh',       u32, 'size: high word'],
  [16, 'blocksLow',      u32, 'blocks: of 512 bytes'],
  [20, 'blocksHigh',     u32, 'blocks: high word'],
  [24, 'atimeLow',       u32, 'atime: seconds, signed'],
  [28, 'atimeHigh',      u32, 'atime: high word'],
  [32, 'mtimeLow',       u32, 'mtime: seconds, signed'],
  [36, 'mtimeHigh',      u32, 'mtime: high word'],
  [40, 'ctimeLow',       u32, 'ctime: seconds, signed'],
  [44, 'ctimeHigh',      u32, 'ctime: high word'],
  [48, 'atimeNsec',      u32, 'atimensec'],
  [52, 'mtimeNsec',      u32, 'mtimensec'],
  [56, 'ctimeNsec',      u32, 'ctimensec'],
  [60, 'mode',           u32, 'mode: type and permissions'],
  [64, 'nlink',          u32, 'nlink'],
  [68, 'uid',            u32, 'uid'],
  [72, 'gid',            u32, 'gid'],
  [76, 'rdev',           u32, 'rdev: new encoding'],
  [80, 'blockSize',      u32, 'blksize: bytes'],
  [84, 'flags',          u32, 'flags: FUSE_ATTR_SUBMOUNT, FUSE_ATTR_DAX'],
])

export type AttrOut = Decoded<typeof attrOut>
export const attrOut = struct('FuseAttrOut', 104, [
  [ 0, 'validLow',       u32, 'attr_valid: seconds'],
  [ 4, 'validHigh',      u32, 'attr_valid: high word'],
  [ 8, 'validNsec',      u32, 'attr_valid_nsec'],
  [12, '_dummy',         reserved(4), 'dummy'],
  [16, 'attr',           bytes(88), 'attr: a FuseAttr'],
])

export type EntryOut = Decoded<typeof entryOut>
export const entryOut = struct('FuseEntryOut', 128, [
  [ 0, 'nodeLow',        u32, 'nodeid: 0 says that the name does not exist, for entry_valid seconds'],
  [ 4, 'nodeHigh',       u32, 'nodeid: high word'],
  [ 8, 'generation',     u64, 'generation: node id and generation are never reused together'],
  [16, 'entryValidLow',  u32, 'entry_valid: seconds'],
  [20, 'entryValidHigh', u32, 'entry_valid: high word'],
  [24, 'attrValidLow',   u32, 'attr_valid: seconds'],
  [28, 'attrValidHigh',  u32, 'attr_valid: high word'],
  [32, 'entryValidNsec', u32, 'entry_valid_nsec'],
  [36, 'attrValidNsec',  u32, 'attr_valid_nsec'],
  [40, 'attr',           bytes(88), 'attr: a FuseAttr'],
])

export const getattrIn = struct('FuseGetattrIn', 16, [
  [ 0, 'flags',          u32, 'getattr_flags'],
  [ 4, '_dummy',         reserved(4), 'dummy'],
  [ 8, 'handle',         u64, 'fh'],
])

export const accessIn = struct('FuseAccessIn', 8, [
  [ 0, 'mask',           u32, 'mask: as access(2)'],
  [ 4, '_padding',       reserved(4), 'padding'],
])

export const batchForgetIn = struct('FuseBatchForgetIn', 8, [
  [ 0, 'count',          u32, 'count: forgotten nodes that follow, 16 bytes each'],
  [ 4, '_dummy',         reserved(4), 'dummy'],
])

export const forgetOne = struct('FuseForgetOne', 16, [
  [ 0, 'nodeLow',        u32, 'nodeid'],
  [ 4, 'nodeHigh',       u32, 'nodeid: high word'],
  [ 8, 'countLow',       u32, 'nlookup: lookups that are forgotten'],
  [12, 'countHigh',      u32, 'nlookup: high word'],
])

export const interruptIn = struct('FuseInterruptIn', 8, [
  [ 0, 'uniqueLow',      u32, 'unique: of the request that is no longer wanted'],
  [ 4, 'uniqueHigh',     u32, 'unique: high word'],
])

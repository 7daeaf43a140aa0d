// The EROFS superblock, at byte 1024 of a bootstrap.
// SPEC: linux fs/erofs/erofs_fs.h `struct erofs_super_block`; spec-rafs.md A.2.

import { bytes, magic, reserved, struct, u16, u32, u64, u8, type Decoded } from '../../core/struct.ts'

export const EROFS_SUPER_OFFSET = 1024
export const EROFS_SUPER_MAGIC_V1 = 0xe0f5_e1e2
/** Compatible feature: "this is a RAFS v6 image". */
export const EROFS_FEATURE_COMPAT_RAFS_V6 = 0x4000_0000
export const EROFS_FEATURE_INCOMPAT_CHUNKED_FILE = 0x4
export const EROFS_FEATURE_INCOMPAT_DEVICE_TABLE = 0x8
/** Inode slots are 32 bytes: nid = (offset - meta area) / 32. */
export const EROFS_SLOT_SIZE = 32
export const EROFS_NAME_LEN = 255

export type SuperBlock = Decoded<typeof superBlock>
export const superBlock = struct('SuperBlock', 128, [
  [  0, 'magic',           magic(EROFS_SUPER_MAGIC_V1), 's_magic'],
  [  4, 'checksum',        u32, 's_checksum: crc32c, 0 in RAFS'],
  [  8, 'featureCompat',   u32, 's_feature_compat: bit 30 marks RAFS v6'],
  [ 12, 'blockBits',       u8,  's_blkszbits: log2 of the block size, 12 (9 in tarfs)'],
  [ 13, 'extSlots',        u8,  's_extslots: 0 in RAFS'],
  [ 14, 'rootNid',         u16, 's_root_nid'],
  [ 16, 'inodeCount',      u64, 's_inos: tree entries, hard-link aliases included'],
  [ 24, 'buildTime',       u64, 's_build_time: seconds, 0 in RAFS'],
  [ 32, 'buildTimeNsec',   u32, 's_build_time_nsec'],
  [ 36, 'blockCount',      u32, 's_blocks: blocks of all data blobs'],
  [ 40, 'metaBlock',       u32, 's_meta_blkaddr: start of the inode area, in blocks'],
  [ 44, 'xattrBlock',      u32, 's_xattr_blkaddr: 0, no shared xattrs'],
  [ 48, 'uuid',            bytes(16), 's_uuid'],
  [ 64, 'volumeName',      bytes(16), 's_volume_name'],
  [ 80, 'featureIncompat', u32, 's_feature_incompat: exactly chunked file | device table'],
  [ 84, 'compression',     u16, 's_u: compression algorithms, 0 in RAFS'],
  [ 86, 'extraDevices',    u16, 's_extra_devices: number of device slots'],
  [ 88, 'deviceSlot',      u16, 's_devt_slotoff: device table offset / 128'],
  [ 90, '_reserved',       reserved(38), 's_reserved'],
])

export type DeviceSlot = Decoded<typeof deviceSlot>
/** SPEC: `struct erofs_deviceslot`; slot i belongs to blob i, EROFS device id i + 1. */
export const deviceSlot = struct('DeviceSlot', 128, [
  [  0, 'tag',             bytes(64), 'tag: blob id, NUL padded'],
  [ 64, 'blocks',          u32, 'blocks: uncompressed size / block size, never 0'],
  [ 68, 'mappedBlock',     u32, 'mapped_blkaddr: address in the flat device'],
  [ 72, '_reserved',       reserved(56), 'reserved'],
])

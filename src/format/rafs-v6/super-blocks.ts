// Both superblocks of a bootstrap, read and judged: which tables it has, where, and that they fit the file.
// SPEC: spec-rafs.md A.1 to A.3; rules as in nydus rafs/src/metadata/layout/v6.rs (RafsV6SuperBlock::validate, RafsV6SuperBlockExt::validate).

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { isPowerOfTwo, KiB, MiB } from '../../core/units.ts'
import {
  deviceSlot, EROFS_FEATURE_COMPAT_RAFS_V6, EROFS_FEATURE_INCOMPAT_CHUNKED_FILE, EROFS_FEATURE_INCOMPAT_DEVICE_TABLE,
  EROFS_SUPER_MAGIC_V1, EROFS_SUPER_OFFSET, superBlock, type SuperBlock,
} from '../erofs/super-block.ts'
import { blobEntry, MAX_BLOBS, type CompressorName, type DigesterName } from './blob-table.ts'
import { chunkEntry } from './chunk-table.ts'
import {
  EROFS_DEVTABLE_OFFSET, MIN_BOOTSTRAP_SIZE, prefetchEntry, RAFS_FLAG, RAFS_FLAGS_KNOWN, RAFS_SUPER_EXT_OFFSET, superBlockExt, type SuperBlockExt,
} from './super-block-ext.ts'

/** First word of a RAFS v5 bootstrap. SPEC: spec-rafs.md B. */
export const RAFS_V5_MAGIC = 0x5241_4653
/** Tables are aligned to this, whatever the block size. */
export const TABLE_ALIGNMENT = 4 * KiB
export const MIN_CHUNK_SIZE = 4 * KiB
export const MAX_CHUNK_SIZE = 16 * MiB

/** What the two superblocks say. `flags` is the low half of the flag word: no bit above 31 is allowed. */
export interface SuperBlocks {
  readonly superBlock: SuperBlock
  readonly ext: SuperBlockExt
  readonly flags: number
  readonly blockSize: number
  /** Byte offset of nid 0. */
  readonly metaOffset: number
  readonly compressor: CompressorName
  readonly digester: DigesterName
}

/**
 * Reads and validates the superblocks of `bytes`, a whole bootstrap.
 * FORMAT_BAD_MAGIC: no bootstrap; FORMAT_UNSUPPORTED: RAFS v5 or tarfs; FORMAT_TRUNCATED, FORMAT_INVALID, FORMAT_OUT_OF_RANGE: damaged.
 */
export function readSuperBlocks(bytes: Uint8Array): SuperBlocks {
  refuseOtherFormats(bytes)
  const sb = superBlock.decode(bytes, EROFS_SUPER_OFFSET)
  const ext = superBlockExt.decode(bytes, RAFS_SUPER_EXT_OFFSET)
  validateSuperBlock(sb, bytes.length)
  const flags = validFlags(ext.flags)
  if (flags & RAFS_FLAG.tarfsMode) {
    throw new CodedError('FORMAT_UNSUPPORTED', 'tarfs images (a bootstrap over plain tar layers) are read from a later version on', { flags })
  }
  validateSuperBlockExt(ext, sb, bytes.length)
  // COMPAT: the block size follows from the tarfs flag; s_blkszbits is only range-checked (nydus rafs/src/metadata/direct_v6.rs block_size)
  const blockSize = TABLE_ALIGNMENT
  const metaOffset = sb.metaBlock * blockSize
  check(metaOffset <= bytes.length, 'the inode area starts behind the end of the file', { metaOffset, size: bytes.length })
  return { superBlock: sb, ext, flags, blockSize, metaOffset, compressor: compressorOf(flags), digester: flags & RAFS_FLAG.hashSha256 ? 'sha256' : 'blake3' }
}

function refuseOtherFormats(bytes: Uint8Array): void {
  const view = dataViewOf(bytes)
  if (bytes.length >= 4 && view.getUint32(0, true) === RAFS_V5_MAGIC) {
    throw new CodedError('FORMAT_UNSUPPORTED', 'RAFS v5 images are read from a later version on', { magic: RAFS_V5_MAGIC })
  }
  const magicEnd = EROFS_SUPER_OFFSET + superBlock.offsetOf.magic + 4
  if (bytes.length >= magicEnd && view.getUint32(magicEnd - 4, true) !== EROFS_SUPER_MAGIC_V1) {
    throw new CodedError('FORMAT_BAD_MAGIC', 'not a RAFS bootstrap: no EROFS superblock at byte 1024', { magic: view.getUint32(magicEnd - 4, true) })
  }
  if (bytes.length < MIN_BOOTSTRAP_SIZE) {
    throw new CodedError('FORMAT_TRUNCATED', `a bootstrap has at least ${MIN_BOOTSTRAP_SIZE} bytes, this one ${bytes.length}`, { size: bytes.length })
  }
}

/** The EROFS superblock, one rule a line. `size`: bytes of the bootstrap. FORMAT_INVALID or FORMAT_UNSUPPORTED. */
export function validateSuperBlock(sb: SuperBlock, size: number): void {
  check(sb.blockBits === 12 || sb.blockBits === 9, `block size 2^${sb.blockBits} is neither 4096 nor 512`)
  check(size % 2 ** sb.blockBits === 0, 'the file is not a whole number of blocks', { size, blockBits: sb.blockBits })
  check(sb.checksum === 0, 'the superblock has a checksum', { checksum: sb.checksum })
  check((sb.featureCompat & EROFS_FEATURE_COMPAT_RAFS_V6) !== 0, 'the superblock does not say RAFS v6', { featureCompat: sb.featureCompat })
  check(sb.featureIncompat === (EROFS_FEATURE_INCOMPAT_CHUNKED_FILE | EROFS_FEATURE_INCOMPAT_DEVICE_TABLE), 'incompatible features are not exactly chunked file and device table', { featureIncompat: sb.featureIncompat })
  check(sb.extSlots === 0, 'the superblock has extension slots', { extSlots: sb.extSlots })
  check(sb.inodeCount !== 0n, 'the superblock counts no inodes')
  check(sb.compression === 0, 'the superblock names EROFS compression', { compression: sb.compression })
  check(sb.xattrBlock === 0, 'the superblock has shared extended attributes', { xattrBlock: sb.xattrBlock })
  // COMPAT: old builders wrote 4096 blocks for images without blobs (nydus rafs/src/metadata/layout/v6.rs)
  check(sb.extraDevices !== 0 || sb.blockCount === 0 || sb.blockCount === 4096, 'no devices, but blocks on devices', { blockCount: sb.blockCount })
  check(sb.deviceSlot * deviceSlot.size === EROFS_DEVTABLE_OFFSET, 'the device table is not behind the superblocks', { deviceSlot: sb.deviceSlot })
  check(sb.extraDevices <= MAX_BLOBS, `more than ${MAX_BLOBS} devices`, { extraDevices: sb.extraDevices })
  check(devicesEnd(sb) <= size, 'the device table runs past the end of the file', { extraDevices: sb.extraDevices })
}

/** The extended superblock's tables: inside the file, aligned, disjoint. FORMAT_INVALID. */
export function validateSuperBlockExt(ext: SuperBlockExt, sb: SuperBlock, size: number): void {
  check(isPowerOfTwo(ext.chunkSize) && ext.chunkSize >= MIN_CHUNK_SIZE && ext.chunkSize <= MAX_CHUNK_SIZE, 'chunk size is not a power of two from 4 KiB to 16 MiB', { chunkSize: ext.chunkSize })
  const floor = Math.max(TABLE_ALIGNMENT, devicesEnd(sb))
  const blobs = table('blob table', ext.blobTableOffset, ext.blobTableSize, blobEntry.size, TABLE_ALIGNMENT)
  check(ext.blobTableSize / blobEntry.size <= MAX_BLOBS, `more than ${MAX_BLOBS} blobs`, { blobTableSize: ext.blobTableSize })
  const chunks = table('chunk table', ext.chunkTableOffset, ext.chunkTableSize, chunkEntry.size, TABLE_ALIGNMENT)
  const prefetch = table('prefetch table', ext.prefetchTableOffset, ext.prefetchTableSize, prefetchEntry.size, 8)
  const present = [blobs] // its offset is checked even when it is empty
  if (ext.chunkTableSize > 0) present.push(chunks)
  // COMPAT: old images of empty trees have a size without an offset (nydus rafs/src/metadata/layout/v6.rs)
  if (ext.prefetchTableSize > 0 && ext.prefetchTableOffset !== 0) present.push(prefetch)
  for (const one of present) {
    check(one.offset % one.alignment === 0 && one.size % one.unit === 0, `${one.name} is not aligned, or not a whole number of entries`, one)
    check(one.offset >= floor && one.offset + one.size <= size, `${one.name} is not inside the file`, one)
    for (const other of present) {
      check(one === other || one.offset + one.size <= other.offset || other.offset + other.size <= one.offset, `${one.name} and ${other.name} overlap`, one)
    }
  }
}

function table(name: string, offset: number, size: number, unit: number, alignment: number) {
  return { name, offset, size, unit, alignment }
}

function devicesEnd(sb: SuperBlock): number {
  return EROFS_DEVTABLE_OFFSET + sb.extraDevices * deviceSlot.size
}

const COMPRESSION_FLAGS = [
  [RAFS_FLAG.compressionNone, 'none'], [RAFS_FLAG.compressionLz4, 'lz4_block'], [RAFS_FLAG.compressionGzip, 'gzip'], [RAFS_FLAG.compressionZstd, 'zstd'],
] as const satisfies readonly (readonly [number, CompressorName])[]
const HASH_FLAGS = RAFS_FLAG.hashBlake3 | RAFS_FLAG.hashSha256

function validFlags(word: bigint): number {
  if (word >> 32n !== 0n || (Number(word) & ~RAFS_FLAGS_KNOWN) !== 0) {
    throw new CodedError('FORMAT_UNSUPPORTED', `superblock flags 0x${word.toString(16)} have bits that this version does not know`, { flags: word })
  }
  const flags = Number(word)
  check(COMPRESSION_FLAGS.filter(([bit]) => flags & bit).length === 1, 'the superblock does not name exactly one compressor', { flags })
  check((flags & HASH_FLAGS) === RAFS_FLAG.hashBlake3 || (flags & HASH_FLAGS) === RAFS_FLAG.hashSha256, 'the superblock does not name exactly one digest algorithm', { flags })
  return flags
}

function compressorOf(flags: number): CompressorName {
  return COMPRESSION_FLAGS.find(([bit]) => flags & bit)![1]
}

function check(holds: boolean, rule: string, context: Readonly<Record<string, string | number>> = {}): void {
  if (!holds) throw new CodedError('FORMAT_INVALID', rule, context)
}

// A GUID partition table: header in the second sector, then an array of entries. Blobs of the localdisk backend lie in partitions.
// SPEC: UEFI 2.10 section 5.3. Both checksums are checked: a damaged table must not serve another blob's bytes.

import { crc32 } from 'node:zlib'
import { bytes, reserved, size64, struct, u32, type Decoded } from '../../core/struct.ts'
import { CodedError } from '../../core/errors.ts'

export const GPT_SIGNATURE = 'EFI PART'
/** Sectors of disks that hold blobs. COMPAT: upstream's localdisk reads no others. */
export const GPT_SECTOR = 512
/** SPEC: UEFI 5.3.3: partitions of the type "Microsoft basic data" carry (the first half of) a blob id in their name alone. */
export const BASIC_DATA = 'ebd0a0a2b9e5443387c068b6b72699c7'
/** LIMIT: entries of one table; disks have 128, and a hostile header claims four thousand million. */
export const MAX_GPT_ENTRIES = 16_384

export type GptHeader = Decoded<typeof gptHeader>
export const gptHeader = struct('GptHeader', 92, [
  [ 0, 'signature',    bytes(8),  'Signature: "EFI PART"'],
  [ 8, 'revision',     u32,       'Revision: 0x00010000'],
  [12, 'headerSize',   u32,       'HeaderSize: bytes under HeaderCRC32, 92 up to a sector'],
  [16, 'headerCrc32',  u32,       'HeaderCRC32: computed with this field zero'],
  [20, '_reserved',    reserved(4), 'Reserved'],
  [24, 'myLba',        size64,    'MyLBA: sector of this header'],
  [32, 'alternateLba', size64,    'AlternateLBA: sector of the other header'],
  [40, 'firstUsable',  size64,    'FirstUsableLBA'],
  [48, 'lastUsable',   size64,    'LastUsableLBA'],
  [56, 'diskGuid',     bytes(16), 'DiskGUID'],
  [72, 'entriesLba',   size64,    'PartitionEntryLBA: sector of the entry array'],
  [80, 'entryCount',   u32,       'NumberOfPartitionEntries'],
  [84, 'entrySize',    u32,       'SizeOfPartitionEntry: 128 times a power of two'],
  [88, 'entriesCrc32', u32,       'PartitionEntryArrayCRC32'],
])

export type GptEntry = Decoded<typeof gptEntry>
export const gptEntry = struct('GptEntry', 128, [
  [ 0, 'typeGuid',   bytes(16), 'PartitionTypeGUID: zero for an unused entry'],
  [16, 'guid',       bytes(16), 'UniquePartitionGUID: the second half of a blob id, except in basic data partitions'],
  [32, 'firstLba',   size64,    'StartingLBA'],
  [40, 'lastLba',    size64,    'EndingLBA, inclusive'],
  [48, 'attributes', bytes(8),  'Attributes'],
  [56, 'name',       bytes(72), 'PartitionName: UTF-16LE, NUL padded; the first half of a blob id'],
])

/** A partition that holds a blob. */
export interface GptPartition {
  /** Blob id, or its first 32 characters where `isShort`. */
  readonly name: string
  readonly isShort: boolean
  readonly offset: number
  readonly length: number
}

/** Where the array of entries is, in bytes. FORMAT_BAD_MAGIC, FORMAT_DIGEST_MISMATCH, FORMAT_OUT_OF_RANGE, FORMAT_TRUNCATED. */
export function readGptHeader(sector: Uint8Array): { readonly offset: number; readonly length: number; readonly header: GptHeader } {
  const header = gptHeader.decode(sector)
  if (Buffer.from(header.signature).toString('latin1') !== GPT_SIGNATURE) throw new CodedError('FORMAT_BAD_MAGIC', 'no GUID partition table')
  if (header.headerSize < gptHeader.size || header.headerSize > sector.length) throw outOfRange('header size', header.headerSize)
  const covered = Uint8Array.from(sector.subarray(0, header.headerSize))
  covered.fill(0, gptHeader.offsetOf.headerCrc32, gptHeader.offsetOf.headerCrc32 + 4)
  if (crc32(covered) !== header.headerCrc32) throw new CodedError('FORMAT_DIGEST_MISMATCH', 'the header of the partition table is damaged')
  if (header.entrySize < gptEntry.size || header.entrySize > 4096 || header.entrySize % gptEntry.size !== 0) throw outOfRange('entry size', header.entrySize)
  if (header.entryCount > MAX_GPT_ENTRIES) throw outOfRange('number of entries', header.entryCount)
  return { offset: header.entriesLba * GPT_SECTOR, length: header.entryCount * header.entrySize, header }
}

/** The partitions in `entries`, the whole array; `diskSize` in bytes bounds them. FORMAT_DIGEST_MISMATCH, FORMAT_OUT_OF_RANGE, FORMAT_INVALID. */
export function readGptPartitions(header: GptHeader, entries: Uint8Array, diskSize: number): GptPartition[] {
  if (crc32(entries) !== header.entriesCrc32) throw new CodedError('FORMAT_DIGEST_MISMATCH', 'the entries of the partition table are damaged')
  const found = new Map<string, GptPartition>()
  for (let i = 0; i < header.entryCount; i++) {
    const entry = gptEntry.decode(entries, i * header.entrySize)
    if (entry.typeGuid.every((byte) => byte === 0)) continue
    const partition = partitionOf(entry)
    if (entry.lastLba < entry.firstLba || partition.offset + partition.length > diskSize) throw outOfRange('end of a partition', partition.offset + partition.length)
    if (partition.name === '' || found.has(partition.name)) throw new CodedError('FORMAT_INVALID', `partition ${i + 1} has no blob id of its own`)
    found.set(partition.name, partition)
  }
  return [...found.values()]
}

function partitionOf(entry: GptEntry): GptPartition {
  const name = Buffer.from(entry.name).toString('utf16le').replace(/\0.*$/s, '')
  const isShort = guidHex(entry.typeGuid) === BASIC_DATA
  return {
    name: isShort ? name : name + guidHex(entry.guid), isShort,
    offset: entry.firstLba * GPT_SECTOR, length: (entry.lastLba - entry.firstLba + 1) * GPT_SECTOR,
  }
}

/** 32 hexadecimal digits as GUIDs are written: their first three fields are little-endian on disk. */
export function guidHex(guid: Uint8Array): string {
  return Buffer.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((at) => guid[at]!)).toString('hex')
}

function outOfRange(what: string, value: number): CodedError {
  return new CodedError('FORMAT_OUT_OF_RANGE', `partition table: ${what} ${value}`, { value })
}

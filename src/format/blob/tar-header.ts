// Tar headers in a blob. They follow the region they describe, so that a blob is understood from its end.
// SPEC: nydus builder/src/core/context.rs write_tar_header; spec-rafs.md C.1.

import { CodedError } from '../../core/errors.ts'
import { bytesOf } from '../../core/byte-string.ts'
import { gnuTarHeader } from './toc.ts'

const MAGIC = 'ustar  '
/** LIMIT: eleven octal digits; larger sizes are base-256, as tar-rs writes them. */
const MAX_OCTAL_SIZE = 8 ** 11 - 1
/** First byte of a base-256 number. */
const BASE_256 = 0x80
const CHECKSUM_SIZE = 8

/** The 512-byte header of a region `name` of `size` bytes, byte for byte as tar-rs makes it. FORMAT_OUT_OF_RANGE for a name above 100 bytes. */
export function tarHeader(name: string, size: number): Uint8Array {
  const fields = { name, size: encodeSize(size), mtime: '00000000000', checksum: ' '.repeat(CHECKSUM_SIZE), typeflag: '0', magic: MAGIC }
  const sum = gnuTarHeader.encode(fields).reduce((total, byte) => total + byte, 0)
  return gnuTarHeader.encode({ ...fields, checksum: sum.toString(8).padStart(CHECKSUM_SIZE - 1, '0') })
}

/**
 * Name and size of the header at `at`, or undefined when there is none. COMPAT: the checksum is not verified, as upstream does not.
 * FORMAT_TRUNCATED, FORMAT_OUT_OF_RANGE for a header with damaged fields.
 */
export function readTarHeader(bytes: Uint8Array, at: number): { name: string; size: number } | undefined {
  const magicAt = at + gnuTarHeader.offsetOf.magic
  if (at < 0 || Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1', magicAt, magicAt + MAGIC.length) !== MAGIC) return undefined
  const { name, size, typeflag } = gnuTarHeader.decode(bytes, at)
  return typeflag === '0' || typeflag === '' ? { name, size: decodeSize(size) } : undefined
}

function encodeSize(size: number): Uint8Array {
  const field = new Uint8Array(12)
  if (size <= MAX_OCTAL_SIZE) {
    field.set(bytesOf(size.toString(8).padStart(11, '0')))
    return field
  }
  for (let i = 11, rest = size; i > 0; i--, rest = Math.floor(rest / 256)) field[i] = rest % 256
  field[0] = BASE_256
  return field
}

function decodeSize(field: Uint8Array): number {
  const isBinary = (field[0]! & BASE_256) !== 0
  const text = String.fromCharCode(...field).replace(/[\0 ].*$/s, '')
  const size = isBinary ? field.subarray(1).reduce((value, byte) => value * 256 + byte, 0) : /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN
  if (!Number.isSafeInteger(size)) throw new CodedError('FORMAT_OUT_OF_RANGE', 'a tar header in a blob has no readable size', { size: text })
  return size
}

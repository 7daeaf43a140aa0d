// Tar headers in a blob. They follow the region they describe, so that a blob is understood from its end.
// SPEC: nydus builder/src/core/context.rs write_tar_header; spec-rafs.md C.1.

import { byteString } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { GNU_MAGIC } from '../tar/header.ts'
import { gnuTarHeader } from './toc.ts'

const CHECKSUM_SIZE = 8

/** The 512-byte header of a region `name` of `size` bytes, byte for byte as tar-rs makes it. FORMAT_OUT_OF_RANGE for a name above 100 bytes. */
export function tarHeader(name: string, size: number): Uint8Array {
  const fields = { name, size, mtime: '00000000000', checksum: ' '.repeat(CHECKSUM_SIZE), typeflag: '0', magic: GNU_MAGIC }
  const sum = gnuTarHeader.encode(fields).reduce((total, byte) => total + byte, 0)
  return gnuTarHeader.encode({ ...fields, checksum: sum.toString(8).padStart(CHECKSUM_SIZE - 1, '0') })
}

/**
 * Name and size of the header at `at`, or undefined when there is none. COMPAT: the checksum is not verified, as upstream does not.
 * FORMAT_OUT_OF_RANGE or TAR_INVALID for a header with damaged fields.
 */
export function readTarHeader(bytes: Uint8Array, at: number): { name: string; size: number } | undefined {
  const magicAt = at + gnuTarHeader.offsetOf.magic
  if (at < 0 || byteString(bytes.subarray(magicAt, magicAt + GNU_MAGIC.length)) !== GNU_MAGIC) return undefined
  const { name, size, typeflag } = gnuTarHeader.decode(bytes, at)
  if (typeflag !== '0' && typeflag !== '') return undefined
  if (size < 0) throw new CodedError('FORMAT_OUT_OF_RANGE', 'a tar header in a blob has a negative size', { size })
  return { name, size }
}

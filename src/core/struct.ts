// Declarative fixed-size structures. A table row is the only place an offset is written:
// reader, writer, offset constants and the docs page are all derived from it.

import { CodedError } from './errors.ts'

export interface FieldType<T> {
  readonly size: number
  readonly label: string
  read(view: DataView, at: number): T
  write(view: DataView, at: number, value: T): void
}

export type Row = readonly [offset: number, name: string, type: FieldType<unknown>, doc: string]

/** Rows whose name starts with `_` are padding: written as zero, absent from the value. */
export type ValueOf<R extends readonly Row[]> = {
  -readonly [F in R[number] as F[1] extends `_${string}` ? never : F[1]]:
    F[2] extends FieldType<infer T> ? T : never
}

export interface Struct<R extends readonly Row[]> {
  readonly name: string
  readonly size: number
  readonly rows: R
  readonly offsetOf: { readonly [N in R[number][1]]: number }
  decode(bytes: Uint8Array, at?: number): ValueOf<R>
  encode(value: ValueOf<R>, bytes?: Uint8Array, at?: number): Uint8Array
}

export type Decoded<S> = S extends Struct<infer R> ? ValueOf<R> : never

/** Declares a structure of `size` bytes by its rows; throws at once when they leave a gap, overlap, or end elsewhere. */
export function struct<const R extends readonly Row[]>(name: string, size: number, rows: R): Struct<R> {
  assertTiles(name, size, rows)
  const visible = rows.filter(([, field]) => !field.startsWith('_'))
  return {
    name,
    size,
    rows,
    offsetOf: Object.fromEntries(rows.map(([offset, field]) => [field, offset])) as Struct<R>['offsetOf'],
    decode(bytes, at = 0) {
      const view = viewOf(name, bytes, at, size)
      const value: Record<string, unknown> = {}
      for (const [offset, field, type] of visible) value[field] = type.read(view, offset)
      return value as ValueOf<R>
    },
    encode(value, bytes = new Uint8Array(size), at = 0) {
      const view = viewOf(name, bytes, at, size)
      const fields = value as Record<string, unknown>
      bytes.fill(0, at, at + size)
      for (const [offset, field, type] of visible) type.write(view, offset, fields[field])
      return bytes
    },
  }
}

/** The docs page for a structure; `docs/format/*.md` is this text plus prose, and CI diffs it. */
export function toMarkdown({ name, size, rows }: Struct<readonly Row[]>): string {
  const line = ([offset, field, type, doc]: Row) =>
    `| 0x${offset.toString(16).padStart(2, '0')} | ${type.size} | ${field} | ${type.label} | ${doc.replaceAll('|', '\\|')} |`
  return [`### ${name} (${size} bytes)`, '', '| Offset | Size | Field | Type | Meaning |',
    '| --- | --- | --- | --- | --- |', ...rows.map(line), ''].join('\n')
}

export const u8: FieldType<number> = {
  size: 1, label: 'u8',
  read: (view, at) => view.getUint8(at),
  write: (view, at, value) => view.setUint8(at, inRange(value, 0xff)),
}

export const u16: FieldType<number> = {
  size: 2, label: 'le16',
  read: (view, at) => view.getUint16(at, true),
  write: (view, at, value) => view.setUint16(at, inRange(value, 0xffff), true),
}

export const u32: FieldType<number> = {
  size: 4, label: 'le32',
  read: (view, at) => view.getUint32(at, true),
  write: (view, at, value) => view.setUint32(at, inRange(value, 0xffff_ffff), true),
}

/** Signed 32-bit value: negative errno. */
export const i32: FieldType<number> = {
  size: 4, label: 'le32 signed',
  read: (view, at) => view.getInt32(at, true),
  write(view, at, value) {
    inRange(value + 0x8000_0000, 0xffff_ffff)
    view.setInt32(at, value, true)
  },
}

/** Opaque 64-bit value: inode numbers, flag words. */
export const u64: FieldType<bigint> = {
  size: 8, label: 'le64',
  read: (view, at) => view.getBigUint64(at, true),
  write: (view, at, value) => view.setBigUint64(at, value, true),
}

/** 64-bit offset or length that the format bounds below 2^53: read as a number, refused above. */
export const size64: FieldType<number> = {
  size: 8, label: 'le64 (< 2^53)',
  read(view, at) {
    const high = view.getUint32(at + 4, true)
    if (high > 0x1f_ffff) throw new CodedError('FORMAT_OUT_OF_RANGE', 'offset is 2^53 or more', { at })
    return high * 2 ** 32 + view.getUint32(at, true)
  },
  write(view, at, value) {
    inRange(value, Number.MAX_SAFE_INTEGER)
    view.setUint32(at, value % 2 ** 32, true)
    view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
  },
}

/** Signed 64-bit seconds (i_mtime): a number, refused outside +-2^53. */
export const seconds64: FieldType<number> = {
  size: 8, label: 'le64 signed (|x| < 2^53)',
  read(view, at) {
    const value = view.getInt32(at + 4, true) * 2 ** 32 + view.getUint32(at, true)
    if (!Number.isSafeInteger(value)) throw new CodedError('FORMAT_OUT_OF_RANGE', 'time is 2^53 seconds or more', { at })
    return value
  },
  write(view, at, value) {
    if (!Number.isSafeInteger(value)) throw new CodedError('FORMAT_OUT_OF_RANGE', `want a whole number of seconds, got ${value}`, { value })
    const low = ((value % 2 ** 32) + 2 ** 32) % 2 ** 32
    view.setUint32(at, low, true)
    view.setInt32(at + 4, Math.floor((value - low) / 2 ** 32), true)
  },
}

/** NUL-padded ASCII (names, blob ids). Bytes after the first NUL are ignored; non-ASCII is refused. */
export function asciiz(size: number): FieldType<string> {
  return {
    size, label: `char[${size}], NUL padded`,
    read(view, at) {
      let text = ''
      for (let i = 0; i < size; i++) {
        const code = view.getUint8(at + i)
        if (code === 0) break
        if (code > 0x7e || code < 0x20) throw new CodedError('FORMAT_OUT_OF_RANGE', `byte 0x${code.toString(16)} in an ASCII field`, { at: at + i })
        text += String.fromCharCode(code)
      }
      return text
    },
    write(view, at, value) {
      if (value.length > size) throw new CodedError('FORMAT_OUT_OF_RANGE', `text of ${value.length} does not fit ${size} bytes`, { value })
      for (let i = 0; i < value.length; i++) view.setUint8(at + i, inRange(value.charCodeAt(i), 0x7e))
    },
  }
}

/** `size` bytes as they are: a view when read, copied when written. */
export function bytes(size: number): FieldType<Uint8Array> {
  return {
    size, label: `byte[${size}]`,
    read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, size),
    write(view, at, value) {
      if (value.length !== size) throw new CodedError('FORMAT_OUT_OF_RANGE', `want ${size} bytes`, { got: value.length })
      new Uint8Array(view.buffer, view.byteOffset + at, size).set(value)
    },
  }
}

/** Padding of `size` bytes: ignored when read, zero when written. */
export function reserved(size: number): FieldType<null> {
  return { size, label: `byte[${size}] = 0`, read: () => null, write: () => {} }
}

/** A le32 that must be `value`; FORMAT_BAD_MAGIC otherwise. */
export function magic(value: number): FieldType<number> {
  const hex = `0x${value.toString(16)}`
  return {
    size: 4, label: `le32 = ${hex}`,
    read(view, at) {
      const got = view.getUint32(at, true)
      if (got !== value) throw new CodedError('FORMAT_BAD_MAGIC', `want ${hex}, got 0x${got.toString(16)}`, { at })
      return got
    },
    write: (view, at) => view.setUint32(at, value, true),
  }
}

interface BitScale { readonly unit?: number; readonly bias?: number }
export type BitRow = readonly [start: number, width: number, name: string, scale?: BitScale]
type BitsOf<B extends readonly BitRow[]> = { -readonly [F in B[number] as F[2]]: number }

/** A packed word; `reader` gives the reader of one of its fields, for loops in which an object per word would cost too much. */
export interface BitsType<T> extends FieldType<T> {
  reader(name: keyof T & string): (view: DataView, at: number) => number
}

/** Packed 64-bit word. Stored value = value / unit - bias; scale belongs in the row, not in a getter. */
export function bits64<const B extends readonly BitRow[]>(rows: B): BitsType<BitsOf<B>> {
  const lenses = rows.map(([start, width, name, scale]) => (
    { name, extract: extractor(start, width), unit: scale?.unit ?? 1, bias: scale?.bias ?? 0 }))
  return {
    size: 8,
    label: `le64: ${rows.map(([start, width, name, s]) =>
      `${name}[${start}..${start + width})${s?.unit ? ` x${s.unit}` : ''}${s?.bias ? ` +${s.bias}` : ''}`).join(', ')}`,
    read(view, at) {
      const low = view.getUint32(at, true)
      const high = view.getUint32(at + 4, true)
      const value: Record<string, number> = {}
      for (const lens of lenses) value[lens.name] = (lens.extract(low, high) + lens.bias) * lens.unit
      return value as BitsOf<B>
    },
    write(view, at, value) {
      let word = 0n
      for (const [start, width, name, scale] of rows) {
        const stored = (value as Record<string, number>)[name]! / (scale?.unit ?? 1) - (scale?.bias ?? 0)
        word |= BigInt(inRange(stored, 2 ** width - 1)) << BigInt(start)
      }
      view.setBigUint64(at, word, true)
    },
    reader(name) {
      const { extract, bias, unit } = lenses.find((lens) => lens.name === name)!
      return (view, at) => (extract(view.getUint32(at, true), view.getUint32(at + 4, true)) + bias) * unit
    },
  }
}

// Masks act on one word each; where a field spans both words they are put together by arithmetic: `<<` works on 32 signed bits and would
// corrupt fields above bit 31. (`%` in place of the masks made a scan of 100,000 chunks three times as slow.)
function extractor(start: number, width: number): (low: number, high: number) => number {
  const mask = (2 ** width - 1) | 0 // of fields inside one word; -1 for a whole one
  if (start >= 32) return (_low, high) => ((high >>> (start - 32)) & mask) >>> 0
  if (start + width <= 32) return (low) => ((low >>> start) & mask) >>> 0
  const highMask = (2 ** (start + width - 32) - 1) | 0
  const highUnit = 2 ** (32 - start)
  return (low, high) => (low >>> start) + ((high & highMask) >>> 0) * highUnit
}

function assertTiles(name: string, size: number, rows: readonly Row[]): void {
  let end = 0
  for (const [offset, field, type] of rows) {
    if (offset !== end) throw new Error(`${name}.${field}: row says ${offset}, previous row ends at ${end}`)
    end += type.size
  }
  if (end !== size) throw new Error(`${name}: rows end at ${end}, declared ${size}`)
}

/** A view for hot loops that read single fields by `offsetOf`; everybody else calls `decode`. */
export function dataViewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

// DataViews are made in this file only: pooled Buffers have a non-zero byteOffset, and short input must become FORMAT_TRUNCATED.
function viewOf(name: string, bytes: Uint8Array, at: number, size: number): DataView {
  if (at < 0 || at + size > bytes.length) {
    throw new CodedError('FORMAT_TRUNCATED', `${name} needs ${size} bytes at ${at}, buffer has ${bytes.length}`, { at })
  }
  return new DataView(bytes.buffer, bytes.byteOffset + at, size)
}

function inRange(value: number, max: number): number {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new CodedError('FORMAT_OUT_OF_RANGE', `want an integer in 0..${max}, got ${value}`, { value })
  }
  return value
}

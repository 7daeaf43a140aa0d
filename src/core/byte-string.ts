// File names, link targets and xattr names are bytes, not text. Inside the project they are "byte strings": JavaScript strings in
// which every character is one byte (latin1). V8 stores them in one byte a character, `<` compares them bytewise, and they are Map keys.

/** Bytes → byte string. */
export function byteString(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}

/** Byte string → bytes (a copy). */
export function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

/** Ordinary (UTF-16) text → byte string of its UTF-8 form. */
export function fromText(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

/** Byte string → text for people: UTF-8 where it decodes, `\xNN` for each byte where it does not. */
export function toText(bytes: string): string {
  const buffer = Buffer.from(bytes, 'latin1')
  const text = buffer.toString('utf8')
  if (Buffer.from(text, 'utf8').equals(buffer)) return text
  return bytes.replace(/[^\x20-\x7e]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** Bytewise order, for `sort`. */
export function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

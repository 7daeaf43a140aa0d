// Upstream prints names and link targets in Rust's debug form; tools that parse its output expect the same.

import { bytesOf } from '../../core/byte-string.ts'

/** A byte string in double quotes, escaped as Rust's `{:?}` of an OsStr: UTF-8 kept, other bytes as \xNN. */
export function quoted(name: string): string {
  const text = new TextDecoder('utf-8', { fatal: true })
  try {
    return `"${escaped(text.decode(bytesOf(name)))}"`
  } catch {
    // Not UTF-8 as a whole: the ASCII part is readable, every other byte is shown by its number.
    return `"${escaped(name).replace(/[\x80-\xff]/g, (c) => `\\x${c.charCodeAt(0).toString(16).toUpperCase()}`)}"`
  }
}

function escaped(text: string): string {
  return text.replace(/[\\"\n\r\t\0-\x1f\x7f]/g, (c) => {
    switch (c) {
      case '\\': return '\\\\'
      case '"': return '\\"'
      case '\n': return '\\n'
      case '\r': return '\\r'
      case '\t': return '\\t'
      case '\0': return '\\0'
      default: return `\\u{${c.charCodeAt(0).toString(16)}}`
    }
  })
}

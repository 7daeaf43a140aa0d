// JSON as Go's encoding/json writes it, so that manifests and configs are, byte for byte, those that upstream's tools make from the same values.
// SPEC: Go 1.22+ encoding/json Marshal: struct fields in declaration order, map keys sorted, HTML characters escaped, no spaces.

import { compareBytes, fromText } from '../../core/byte-string.ts'

/** How a value is written: as it is, as a Go `time.Time`, or by its Go type. */
export type Shape =
  | 'plain'
  | 'time'
  | { readonly list: Shape }
  | { readonly map: Shape }
  | { readonly struct: readonly Field[] }

/** One field of a Go struct, in declaration order. Without `always` it has `omitempty`: absent when empty (structs never are). */
export type Field = readonly [key: string, shape: Shape, presence?: 'always']

/** What happens to keys that no struct names: Go drops them. Kept ones follow the named ones, in their own order. */
export interface GoJsonOptions { readonly foreignKeys: 'keep' | 'drop' }

/** `value` (plain JSON data) as JSON text in the form that `shape` describes. */
export function goJson(value: unknown, shape: Shape, options: GoJsonOptions): string {
  if (value === undefined || value === null) return 'null'
  if (shape === 'time' && typeof value === 'string') return goString(goTime(value))
  if (typeof value === 'string') return goString(value)
  if (typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) {
    const of = typeof shape === 'object' && 'list' in shape ? shape.list : 'plain'
    return `[${value.map((item) => goJson(item, of, options)).join(',')}]`
  }
  const entries = Object.entries(value)
  if (typeof shape === 'object' && 'struct' in shape) return goStruct(new Map(entries), shape.struct, options)
  if (typeof shape === 'object' && 'map' in shape) entries.sort(([a], [b]) => compareBytes(fromText(a), fromText(b)))
  const of = typeof shape === 'object' && 'map' in shape ? shape.map : 'plain'
  return `{${entries.filter(([, item]) => item !== undefined).map(([key, item]) => `${goString(key)}:${goJson(item, of, options)}`).join(',')}}`
}

/** Compact JSON as `MarshalIndent` with two spaces writes it: empty lists and objects stay together. */
export function indented(json: string): string {
  const margin = (depth: number): string => `\n${'  '.repeat(depth)}`
  let depth = 0
  return json.replace(/"(?:[^"\\]|\\.)*"|\[\]|\{\}|[[\]{},:]/g, (token) => {
    switch (token) {
      case '[': case '{': return `${token}${margin(++depth)}`
      case ']': case '}': return `${margin(--depth)}${token}`
      case ',': return `,${margin(depth)}`
      case ':': return ': '
      default: return token
    }
  })
}

function goStruct(values: Map<string, unknown>, fields: readonly Field[], options: GoJsonOptions): string {
  const members: string[] = []
  for (const [key, shape, presence] of fields) {
    const value = values.get(key)
    values.delete(key)
    if (presence === 'always' || !isEmpty(value, shape)) members.push(`${goString(key)}:${goJson(value ?? zero(shape), shape, options)}`)
  }
  if (options.foreignKeys === 'keep') {
    for (const [key, value] of values) if (value !== undefined) members.push(`${goString(key)}:${goJson(value, 'plain', options)}`)
  }
  return `{${members.join(',')}}`
}

/** What Go has where nothing was set: strings and numbers are told apart by their users, who always set numbers. */
function zero(shape: Shape): unknown {
  if (shape === 'plain') return ''
  return typeof shape === 'object' && 'struct' in shape ? {} : null
}

function isEmpty(value: unknown, shape: Shape): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true
  if (typeof value !== 'object') return false
  return Array.isArray(value) ? value.length === 0 : !(typeof shape === 'object' && 'struct' in shape) && Object.keys(value).length === 0
}

function goString(text: string): string {
  return JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** RFC 3339 as Go writes it back: at most nine decimals, none that are zero at the end, and `Z` for no offset. Other text stays. */
function goTime(text: string): string {
  const [, seconds, fraction = '', zone] = /^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})$/.exec(text) ?? []
  if (seconds === undefined || zone === undefined) return text
  const decimals = fraction.slice(0, 9).replace(/0+$/, '')
  return `${seconds}${decimals === '' ? '' : `.${decimals}`}${/^[+-]00:00$/.test(zone) ? 'Z' : zone}`
}

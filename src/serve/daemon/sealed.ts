// What one process leaves for the next one to continue from: versioned, checksummed JSON.

import { createHash } from 'node:crypto'
import { CodedError, foreignText } from '../../core/errors.ts'

/** `body` as bytes that `unseal` takes. */
export function seal(format: string, version: number, value: object): Buffer {
  const body = JSON.stringify(value)
  return Buffer.from(`${JSON.stringify({ format, version, sha256: digestOf(body), body })}\n`)
}

/** What `seal` of one of `versions` (the newest first) made. @throws SERVE_BAD_STATE_FILE for anything else */
export function unseal(bytes: Uint8Array, format: string, versions: readonly number[]): { readonly version: number; readonly body: Record<string, unknown> } {
  const envelope = parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'))
  if (envelope['format'] !== format) throw badState('not a daemon state')
  const version = versions.find((one) => one === envelope['version'])
  if (version === undefined) throw badState(`version ${foreignText(String(envelope['version']), 20)}, this program reads ${versions[0]}`)
  const body = envelope['body']
  if (typeof body !== 'string' || envelope['sha256'] !== digestOf(body)) throw badState('its digest is wrong: truncated or damaged')
  return { version, body: parse(body) }
}

/** One check for each field of `T`. */
export type Fields<T> = Readonly<Record<keyof T, (value: unknown) => boolean>>

/** Whether `value` is an object whose fields all pass. */
export function fits<T>(fields: Fields<T>, value: unknown): value is T {
  if (typeof value !== 'object' || value === null) return false
  const record = new Map<string, unknown>(Object.entries(value))
  return Object.entries<(value: unknown) => boolean>(fields).every(([name, check]) => check(record.get(name)))
}

export const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0
export const isText = (value: unknown): boolean => typeof value === 'string'
export const isFlag = (value: unknown): boolean => typeof value === 'boolean'
export const isMissingOr = (check: (value: unknown) => boolean) => (value: unknown): boolean => value === undefined || check(value)
export const isListOf = (check: (value: unknown) => boolean) => (value: unknown): boolean => Array.isArray(value) && value.every(check)

/** The error for a state that cannot be used: SERVE_BAD_STATE_FILE. */
export function badState(why: string): CodedError {
  return new CodedError('SERVE_BAD_STATE_FILE', `the saved daemon state cannot be used: ${why}`)
}

/** The object that `text` is in JSON. @throws SERVE_BAD_STATE_FILE */
export function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    // SAFETY: an object by the check; its fields stay unknown.
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  throw badState('not JSON')
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

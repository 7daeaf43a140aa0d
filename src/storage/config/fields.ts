// Checked access to the values of a parsed configuration. By hand, not with zod: every daemon's start-up waits for it.

import { CodedError } from '../../core/errors.ts'

/** One table of a configuration; `path` names it in errors. Unknown keys are ignored. COMPAT: as serde does for upstream. */
export class Fields {
  readonly path: string
  /** All of it, unchecked. */
  readonly values: Readonly<Record<string, unknown>>

  /** CONFIG_INVALID when `value` is no table. */
  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(path || 'the configuration', 'must be a table')
    // SAFETY: a non-null object that is no array; every value is checked where it is read.
    this.values = value as Record<string, unknown>
    this.path = path
  }

  has(key: string): boolean {
    return this.values[key] !== undefined && this.values[key] !== null
  }

  /** The value, or `fallback` when there is none; without a fallback it must be there. */
  string(key: string, fallback?: string): string {
    return this.#value(key, fallback, (value) => typeof value === 'string', 'text')
  }

  boolean(key: string, fallback?: boolean): boolean {
    return this.#value(key, fallback, (value) => typeof value === 'boolean', 'true or false')
  }

  /** A whole number within 0..max. */
  integer(key: string, { fallback, max }: { readonly fallback?: number; readonly max: number }): number {
    return this.#value(key, fallback, (value) => Number.isInteger(value) && Number(value) >= 0 && Number(value) <= max, `a whole number up to ${max}`)
  }

  strings(key: string): readonly string[] {
    return this.#value<readonly string[]>(key, [], (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'), 'a list of texts')
  }

  /** The tables of the list `key`. */
  tables(key: string): readonly Fields[] {
    const list = this.#value<readonly unknown[]>(key, [], Array.isArray, 'a list of tables')
    return list.map((item, i) => new Fields(item, `${this.#name(key)}[${i}]`))
  }

  /** The value as it is. */
  raw(key: string): unknown {
    return this.values[key]
  }

  keys(): readonly string[] {
    return Object.keys(this.values)
  }

  /** The table `key`, or undefined. */
  table(key: string): Fields | undefined {
    return this.has(key) ? new Fields(this.values[key], this.#name(key)) : undefined
  }

  required(key: string): Fields {
    return this.table(key) ?? this.#missing(key)
  }

  /** CONFIG_INVALID about `key`. */
  refuse(key: string, rule: string): never {
    throw invalid(this.#name(key), rule)
  }

  #value<T>(key: string, fallback: T | undefined, fits: (value: unknown) => boolean, kind: string): T {
    const value = this.values[key]
    if (value === undefined || value === null) return fallback ?? this.#missing(key)
    if (!fits(value)) throw invalid(this.#name(key), `must be ${kind}`)
    // SAFETY: `fits` is the check of exactly that type.
    return value as T
  }

  #missing(key: string): never {
    throw invalid(this.#name(key), 'is missing')
  }

  #name(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`
  }
}

function invalid(key: string, rule: string): CodedError {
  return new CodedError('CONFIG_INVALID', `configuration: ${key} ${rule}`, { key })
}

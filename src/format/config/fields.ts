// Reading fields of a parsed JSON value: every mismatch names the key, unknown keys are ignored (COMPAT: nydus api/src/config.rs).

import { CodedError } from '../../core/errors.ts'

/** An object of a configuration and where it stands in it. */
export class Fields {
  readonly #values: ReadonlyMap<string, unknown>
  readonly #path: string

  /** @throws CONFIG_INVALID when `value` is no object */
  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(path || 'the configuration', 'an object')
    this.#values = new Map(Object.entries(value))
    this.#path = path
  }

  has(key: string): boolean {
    const value = this.#values.get(key)
    return value !== undefined && value !== null
  }

  text(key: string, fallback?: string): string {
    return this.#read(key, fallback, 'a string', (value): value is string => typeof value === 'string')
  }

  flag(key: string, fallback: boolean): boolean {
    return this.#read(key, fallback, 'true or false', (value): value is boolean => typeof value === 'boolean')
  }

  /** A whole number from `least` to `most`. */
  count(key: string, fallback: number, { least = 0, most = 2 ** 32 }: { readonly least?: number; readonly most?: number } = {}): number {
    return this.#read(key, fallback, `a whole number from ${least} to ${most}`, (value): value is number =>
      typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
  }

  texts(key: string): readonly string[] {
    return this.#read(key, [], 'a list of strings', (value): value is string[] => Array.isArray(value) && value.every((item) => typeof item === 'string'))
  }

  /** The object at `key`; an absent one is empty unless `required`. */
  object(key: string, { required = false }: { readonly required?: boolean } = {}): Fields {
    const at = this.path(key)
    if (!this.has(key)) {
      if (required) throw invalid(at, 'given')
      return new Fields({}, at)
    }
    return new Fields(this.#values.get(key), at)
  }

  path(key: string): string {
    return this.#path === '' ? key : `${this.#path}.${key}`
  }

  #read<T>(key: string, fallback: T | undefined, want: string, is: (value: unknown) => value is T): T {
    const value = this.#values.get(key)
    if (value === undefined || value === null) {
      if (fallback !== undefined) return fallback
      throw invalid(this.path(key), 'given')
    }
    if (!is(value)) throw invalid(this.path(key), want)
    return value
  }
}

function invalid(path: string, want: string): CodedError {
  return new CodedError('CONFIG_INVALID', `${path} must be ${want}`, { key: path })
}

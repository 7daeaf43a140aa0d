// What flags say about registries, platforms and durations, for the library.

import { hostPlatform, parsePlatforms, formatPlatform } from '../../format/oci/platform.ts'
import { parseLocation, type RegistryOptions } from '../../registry/index.ts'
import { usageError, type Values } from './flags.ts'

/** `--source-insecure` and its kin. */
export function registryOf({ insecure, plainHttp = false }: { insecure: boolean; plainHttp?: boolean }): RegistryOptions {
  return plainHttp ? { plainHttp: true } : insecure ? { insecure: true } : {}
}

/** The host of a reference; undefined for everything that is no registry. */
export function hostOf(text: string): string | undefined {
  const location = parseLocation(text)
  return location.kind === 'registry' ? location.reference.domain : undefined
}

/** `--platform` and `--all-platforms`. */
export function platformsOf(values: Values): readonly string[] | 'all' {
  if (values.isOn('all-platforms')) {
    if (values.isSet('platform')) throw usageError('--all-platforms conflicts with --platform')
    return 'all'
  }
  const chosen = parsePlatforms(values.text('platform')).map(formatPlatform)
  return chosen.length === 0 ? [formatPlatform(hostPlatform())] : chosen
}

const UNITS_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, 'µs': 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A duration as Go writes it (`1h30m`, `1.5s`), in milliseconds. */
export function durationMs(text: string, flag: string): number {
  if (text === '0') return 0
  if (!/^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+$/.test(text)) throw usageError(`invalid duration "${text}" for -${flag}: write 5s, 1m30s, 1h`)
  let total = 0
  for (const [, value, unit] of text.matchAll(/(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)/g)) total += Number(value) * UNITS_MS[unit!]!
  return total
}

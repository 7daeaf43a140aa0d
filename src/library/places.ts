// What several calls of the library have in common: platforms, signals, and the nydusd that belongs to this package.

import path from 'node:path'
import { hostPlatform, parsePlatform, type Platform } from '../format/oci/platform.ts'

/** `os/architecture[/variant]`; default this machine's. CONFIG_INVALID. */
export function platformOf(text: string | undefined): Platform {
  return text === undefined ? hostPlatform() : parsePlatform(text)
}

/** A signal that never aborts, for callers without one. */
export function signalOf(signal: AbortSignal | undefined): AbortSignal {
  return signal ?? new AbortController().signal
}

/** How to run nydusd: `file`, or ours with this very Node. */
export function nydusdCommand(file: string | undefined): readonly [string, ...string[]] {
  // src/library/ and dist/library/ are equally deep
  return file === undefined ? [process.execPath, path.resolve(import.meta.dirname, '../../bin/nydusd')] : [file]
}

// Finds and loads the C addon, once, at its first use: importing this file never fails, so the package imports everywhere.

import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { CodedError } from '../core/errors.ts'
import type { NativeAddon } from './addon.ts'

// src/native/ and dist/native/ are equally deep.
const PACKAGE_ROOT = path.resolve(import.meta.dirname, '../..')

/** Platforms that released packages carry a binary for. */
const SUPPORTED_PLATFORMS = ['linux-x64-glibc']

let loaded: NativeAddon | undefined

/** The addon. @throws CodedError NATIVE_UNAVAILABLE, naming the platform, what was tried and the remedy. */
export function native(): NativeAddon {
  loaded ??= loadNative(PACKAGE_ROOT)
  return loaded
}

/** Loads the addon below `root`: what a checkout built if there is one (a package has no build/, and `npm pack` leaves a prebuilt one in the checkout that grows old), else the prebuilt one of this platform. `native` is what callers want. */
export function loadNative(root: string): NativeAddon {
  const platform = platformName()
  const candidates = [path.join(root, 'build', 'nydus.node'), path.join(root, 'prebuilt', platform, 'nydus.node')]
  const file = candidates.find((candidate) => existsSync(candidate))
  const context = { platform, tried: candidates.join(', ') }
  if (file === undefined) {
    throw new CodedError('NATIVE_UNAVAILABLE', `no native addon for ${platform}: ${remedy(root)} (tried ${context.tried})`, context)
  }
  try {
    // SAFETY: addon.ts describes what native/*.c exports; the package ships both together.
    return createRequire(import.meta.url)(file) as NativeAddon
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new CodedError('NATIVE_UNAVAILABLE', `native addon for ${platform} does not load: ${reason}; ${remedy(root)} (tried ${file})`, context, { cause })
  }
}

/** `linux-x64-glibc`: operating system, processor and C library, as the folders in prebuilt/ are called. */
export function platformName(): string {
  return `${process.platform}-${process.arch}${process.platform === 'linux' ? `-${libcName()}` : ''}`
}

// The dynamic loader that Node itself names in its ELF header, within the first page. (process.report also knows, but takes 4 ms and
// looks up the names of open connections.)
function libcName(): string {
  const head = Buffer.alloc(4096)
  const file = openSync(process.execPath, 'r')
  try {
    readSync(file, head, 0, head.length, 0)
  } finally {
    closeSync(file)
  }
  return head.includes('ld-musl') ? 'musl' : 'glibc'
}

function remedy(root: string): string {
  return existsSync(path.join(root, 'native'))
    ? 'run `npm run build` in this checkout'
    : `released packages support ${SUPPORTED_PLATFORMS.join(', ')}`
}

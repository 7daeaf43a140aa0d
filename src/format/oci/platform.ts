// Platforms: `os/arch[/variant]`, spelled in many ways by images and people, compared after normalisation.
// SPEC: opencontainers/image-spec image-index.md "platform"; COMPAT: names, defaults and orders are those of containerd/platforms 1.0.

import { CodedError, foreignText } from '../../core/errors.ts'

/** Field names as in JSON; the order of the rows is the order in which Go writes them. */
export interface Platform {
  readonly architecture: string
  readonly os: string
  readonly 'os.version'?: string
  readonly 'os.features'?: readonly string[]
  readonly variant?: string
}

const KNOWN_OS: ReadonlySet<string> = new Set(['aix', 'android', 'darwin', 'dragonfly', 'freebsd', 'hurd', 'illumos', 'ios', 'js',
  'linux', 'nacl', 'netbsd', 'openbsd', 'plan9', 'solaris', 'windows', 'zos'])
const KNOWN_ARCHITECTURES: ReadonlySet<string> = new Set(['386', 'amd64', 'amd64p32', 'arm', 'armbe', 'arm64', 'arm64be', 'ppc64', 'ppc64le',
  'loong64', 'mips', 'mipsle', 'mips64', 'mips64le', 'mips64p32', 'mips64p32le', 'ppc', 'riscv', 'riscv64', 's390', 's390x', 'sparc',
  'sparc64', 'wasm'])

/** Node's names → Go's. ppc64 and mipsel are little-endian wherever Node runs. */
const NODE_ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ['x64', 'amd64'], ['ia32', '386'], ['ppc64', 'ppc64le'], ['mipsel', 'mipsle']])

/** The platform whose images this machine runs: Linux (what this project serves), with the process's architecture. */
export function hostPlatform(architecture: string = process.arch): Platform {
  return { os: 'linux', architecture: NODE_ARCHITECTURES.get(architecture) ?? architecture }
}

/**
 * `linux/amd64/v2`, `linux/arm64`, `linux`, `aarch64`, `windows(10.0.17763)/amd64` → platform, normalised. What is left out comes from `host`.
 * Throws CONFIG_INVALID for anything else, wildcards included.
 */
export function parsePlatform(specifier: string, host: Platform = hostPlatform()): Platform {
  const invalid = (why: string) => new CodedError('CONFIG_INVALID', `platform "${foreignText(specifier)}": ${why}`)
  const parts = specifier.split('/')
  if (parts.length > 3) throw invalid('want os/architecture[/variant]')
  const [first = '', second, third] = parts
  const osAndVersion = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$/.exec(first)
  if (!osAndVersion || parts.slice(1).some((part) => !/^[A-Za-z0-9_.-]+$/.test(part))) throw invalid('want os/architecture[/variant] of letters, digits, "_", "." and "-"')
  const os = normalizeOs(osAndVersion[1]!)
  const version = osAndVersion[2] ? { 'os.version': osAndVersion[2] } : {}

  if (second === undefined) {
    if (KNOWN_OS.has(os)) return { ...withoutOs(host), os, ...version }
    const alone = specified(host.os, ...normalizeArchitecture(first, ''))
    if (!KNOWN_ARCHITECTURES.has(alone.architecture)) throw invalid('neither an operating system nor an architecture that is known')
    return alone
  }
  const [architecture, variant] = normalizeArchitecture(second, third ?? '')
  if (third === undefined) return { ...specified(os, architecture, variant), ...version }
  // COMPAT: a variant that was written out stays visible, although arm64/v8 and arm64 are the same platform.
  return { architecture, os, ...version, ...optionalVariant(architecture === 'arm64' && variant === '' ? 'v8' : variant) }
}

/** A comma-separated list (`--platform`), without repetitions. Throws CONFIG_INVALID. */
export function parsePlatforms(list: string, host: Platform = hostPlatform()): Platform[] {
  const specifiers = new Set(list.split(',').map((item) => item.trim()).filter((item) => item !== ''))
  return [...specifiers].map((specifier) => parsePlatform(specifier, host))
}

/** Text for people and flags: `linux/arm64/v8`; `unknown` without an operating system. */
export function formatPlatform(platform: Platform): string {
  if (platform.os === '') return 'unknown'
  return [platform.os, platform.architecture, platform.variant ?? ''].filter((part) => part !== '').join('/')
}

/** The canonical spelling: x86_64 → amd64, aarch64/v8 → arm64, arm → arm/v7, macOS → darwin. Other fields stay. */
export function normalizePlatform(platform: Platform): Platform {
  const [architecture, variant] = normalizeArchitecture(platform.architecture, platform.variant ?? '')
  const { variant: _dropped, ...rest } = platform
  return { ...rest, architecture, os: normalizeOs(platform.os), ...optionalVariant(variant) }
}

/** Whether both name the same platform once normalised: operating system, architecture and variant (not versions or features). */
export function matchesPlatform(wanted: Platform, offered: Platform): boolean {
  const a = normalizePlatform(wanted)
  const b = normalizePlatform(offered)
  return a.os === b.os && a.architecture === b.architecture && (a.variant ?? '') === (b.variant ?? '')
}

/**
 * The index of the offer that suits `wanted` best, or -1: an equal platform first, then what the same processor also runs, best first
 * (amd64/v3 → v2 → v1 → 386; arm64/v9 → v8 → arm/v8…v5; arm/v7 → v6 → v5). Offers without a platform never suit.
 */
export function bestPlatform(wanted: Platform, offers: readonly (Platform | undefined)[]): number {
  for (const candidate of runnablePlatforms(normalizePlatform(wanted))) {
    const index = offers.findIndex((offer) => offer !== undefined && matchesPlatform(candidate, offer))
    if (index >= 0) return index
  }
  return -1
}

function runnablePlatforms(platform: Platform): Platform[] {
  const { os, architecture, variant = '' } = platform
  const version = Number(/^v?([0-9]+)$/.exec(variant)?.[1] ?? 0)
  const down = (name: string, from: number, to: number): Platform[] => {
    const list: Platform[] = []
    // LIMIT: no architecture has more than 16 variants; a claimed "v999999" must not make a list of that length.
    for (let step = Math.min(from, 16); step >= to; step--) list.push({ architecture: name, os, variant: `v${step}` })
    return list
  }
  switch (architecture) {
    case 'amd64': return [platform, ...down('amd64', version - 1, 1), { architecture: '386', os }]
    case 'arm': return [platform, ...down('arm', version - 1, 5)]
    case 'arm64': {
      const below = arm64Below(variant)
      return below === undefined ? [platform] : [platform, ...below.map((name) => ({ architecture, os, variant: name })), ...down('arm', 8, 5)]
    }
    default: return [platform]
  }
}

/** Armv9.n includes Armv8.(n+5), at most v8.9; each minor version includes the ones below it. Undefined for a variant that is not known. */
function arm64Below(variant: string): string[] | undefined {
  const known = /^v([89])(?:\.([0-9]))?$/.exec(variant === '' ? 'v8' : variant)
  if (known === null) return undefined
  const minor = Number(known[2] ?? 0)
  const series = (major: number, from: number) => Array.from({ length: from + 1 }, (_, index) => (index === from ? `v${major}` : `v${major}.${from - index}`))
  return known[1] === '9' ? [...series(9, minor - 1), ...series(8, Math.min(minor + 5, 9))] : series(8, minor - 1)
}

function normalizeOs(os: string): string {
  const lower = os.toLowerCase()
  return lower === 'macos' ? 'darwin' : lower === '' ? 'linux' : lower
}

function normalizeArchitecture(architecture: string, variant: string): [architecture: string, variant: string] {
  const arch = architecture.toLowerCase()
  const v = variant.toLowerCase()
  switch (arch) {
    case 'i386': return ['386', '']
    case 'x86_64': case 'x86-64': case 'amd64': return ['amd64', v === 'v1' ? '' : v]
    case 'aarch64': case 'arm64':
      if (v === '8' || v === 'v8' || v === 'v8.0') return ['arm64', '']
      return ['arm64', v === '9' || v === '9.0' || v === 'v9.0' ? 'v9' : v]
    case 'armhf': return ['arm', 'v7']
    case 'armel': return ['arm', 'v6']
    case 'arm':
      if (v === '' || v === '7') return ['arm', 'v7']
      return ['arm', v === '5' || v === '6' || v === '8' ? `v${v}` : v]
    default: return [arch, v]
  }
}

/** Without a written variant, arm means v7 and says nothing. */
function specified(os: string, architecture: string, variant: string): Platform {
  return { architecture, os, ...optionalVariant(architecture === 'arm' && variant === 'v7' ? '' : variant) }
}

function withoutOs({ architecture, variant }: Platform): { architecture: string; variant?: string } {
  return { architecture, ...optionalVariant(variant ?? '') }
}

function optionalVariant(variant: string): { variant?: string } {
  return variant === '' ? {} : { variant }
}

import { describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { bestPlatform, formatPlatform, hostPlatform, matchesPlatform, normalizePlatform, parsePlatform, parsePlatforms } from './platform.ts'

const host = { os: 'linux', architecture: 'amd64' }

describe('parsePlatform', () => {
  it.each([
    ['linux/amd64', 'linux/amd64'], ['linux/amd64/v2', 'linux/amd64/v2'], ['linux/x86_64', 'linux/amd64'], ['Linux/AMD64', 'linux/amd64'],
    ['linux/aarch64', 'linux/arm64'], ['linux/arm64/v8', 'linux/arm64/v8'], ['linux/arm64/8', 'linux/arm64/v8'], ['linux/arm', 'linux/arm'],
    ['linux/arm/7', 'linux/arm/v7'], ['linux/arm/6', 'linux/arm/v6'], ['armhf', 'linux/arm'], ['armel', 'linux/arm/v6'], ['linux', 'linux/amd64'], ['macos/arm64', 'darwin/arm64'],
    ['i386', 'linux/386'], ['arm64', 'linux/arm64'], ['linux/unheard-of', 'linux/unheard-of'], ['linux/amd64/v1', 'linux/amd64'],
  ])('reads %s as %s', (text, want) => expect(formatPlatform(parsePlatform(text, host))).toBe(want))

  it('keeps the version of an operating system', () => {
    expect(parsePlatform('windows(10.0.17763)/amd64', host)).toEqual({ os: 'windows', architecture: 'amd64', 'os.version': '10.0.17763' })
  })
  it.each(['', '*', 'linux/*', 'a/b/c/d', 'linux//v2', 'nonsense', 'linux/am d64', '/amd64'])('refuses %j', (text) => {
    let caught: unknown
    try { parsePlatform(text, host) } catch (error) { caught = error }
    expect(hasCode(caught, 'CONFIG_INVALID')).toBe(true)
  })
  it('splits lists at commas and drops repetitions', () => {
    expect(parsePlatforms('linux/amd64, linux/arm64,,linux/amd64', host).map(formatPlatform)).toEqual(['linux/amd64', 'linux/arm64'])
  })
  it('translates the names of processors that Node uses', () => {
    expect(hostPlatform('x64')).toEqual({ os: 'linux', architecture: 'amd64' })
    expect(hostPlatform('arm64').architecture).toBe('arm64')
    expect(hostPlatform('ppc64').architecture).toBe('ppc64le')
  })
})

describe('matching', () => {
  it('compares normalised platforms', () => {
    expect(matchesPlatform({ os: 'linux', architecture: 'arm64' }, { os: 'linux', architecture: 'aarch64', variant: 'v8' })).toBe(true)
    expect(matchesPlatform({ os: 'linux', architecture: 'arm' }, { os: 'linux', architecture: 'arm', variant: 'v7' })).toBe(true)
    expect(matchesPlatform(host, { os: 'linux', architecture: 'amd64', variant: 'v2' })).toBe(false)
    expect(matchesPlatform(host, { os: 'unknown', architecture: 'unknown' })).toBe(false)
    expect(normalizePlatform({ os: 'linux', architecture: 'arm64', variant: 'v8' })).toEqual({ os: 'linux', architecture: 'arm64' })
  })
  it('falls back to what the processor also runs, best first', () => {
    const offers = ['linux/386', 'linux/amd64', 'linux/amd64/v2', 'linux/arm/v6', 'linux/arm/v7'].map((text) => parsePlatform(text, host))
    const best = (text: string) => bestPlatform(parsePlatform(text, host), offers)
    expect([best('linux/amd64/v3'), best('linux/amd64'), best('linux/arm64'), best('linux/arm/v6'), best('linux/s390x'), best('linux/386')]).toEqual([2, 1, 4, 3, -1, 0])
    expect(bestPlatform(host, [undefined])).toBe(-1)
    const arm = ['linux/arm64/v8.4', 'linux/arm64/v9'].map((text) => parsePlatform(text, host))
    expect(bestPlatform(parsePlatform('linux/arm64/v9.2', host), arm)).toBe(1)
    expect(bestPlatform(parsePlatform('linux/arm64/v8.5', host), arm)).toBe(0)
    expect(bestPlatform(parsePlatform('linux/arm64', host), arm)).toBe(-1)
    expect(bestPlatform(parsePlatform('linux/arm64/x', host), [parsePlatform('linux/arm/v7', host)])).toBe(-1)
    expect(bestPlatform({ os: 'linux', architecture: 'amd64', variant: 'v99999999' }, [])).toBe(-1)
  })
})

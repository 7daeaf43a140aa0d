import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadNative, native, platformName } from './load.ts'

const ADDON = path.resolve(import.meta.dirname, '../../build/nydus.node')
const directory = mkdtempSync(path.join(tmpdir(), 'nydus-load-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function rootWith(name: string, files: Readonly<Record<string, string>>): string {
  const root = path.join(directory, name)
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true })
    writeFileSync(path.join(root, file), text)
  }
  return root
}

describe('native()', () => {
  it('loads once', () => expect(native()).toBe(native()))

  it('prefers what the checkout built to a prebuilt addon that npm pack left there', () => {
    const root = rootWith('prebuilt', { [`prebuilt/${platformName()}/nydus.node`]: 'not a library' })
    cpSync(ADDON, path.join(root, 'build', 'nydus.node'), { recursive: true })
    expect(loadNative(root).crc32c(new Uint8Array(1))).toBe(native().crc32c(new Uint8Array(1)))
  })

  it('names platform, places and remedy when there is none', () => {
    expect(() => loadNative(rootWith('package', { 'package.json': '{}' }))).toThrow(expect.objectContaining({
      code: 'NATIVE_UNAVAILABLE', message: expect.stringMatching(/no native addon for linux-\w+-(glibc|musl): released packages support linux-x64-glibc .*build.*prebuilt/),
    }))
    expect(() => loadNative(rootWith('checkout', { 'native/module.c': '' }))).toThrow(/npm run build/)
  })

  it('names the reason when it does not load', () => {
    expect(() => loadNative(rootWith('broken', { 'build/nydus.node': 'not a library' }))).toThrow(expect.objectContaining({
      code: 'NATIVE_UNAVAILABLE', message: expect.stringMatching(/does not load: .*(invalid ELF header|file too short)/),
    }))
  })
})

describe('the binary', () => {
  it('needs nothing but libc, of an old version', () => {
    const needed = [...execFileSync('readelf', ['-d', ADDON], { encoding: 'utf8' }).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, library]) => library)
    expect(needed.filter((library) => !/^(libc\.so\.6|ld-linux-[\w-]+\.so\.\d)$/.test(library!))).toEqual([])
    const versions = [...execFileSync('readelf', ['-W', '-V', ADDON], { encoding: 'utf8' }).matchAll(/Name: GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor))
    expect(versions.length).toBeGreaterThan(0)
    expect(Math.max(...versions)).toBeLessThanOrEqual(17) // every distribution since 2012
  })

  it('shows no symbol but its entry points, and uses its own zlib', () => {
    const symbols = execFileSync('readelf', ['-W', '--dyn-syms', ADDON], { encoding: 'utf8' }).split('\n')
    const defined = symbols.filter((line) => /\b(GLOBAL|WEAK)\b/.test(line) && !/ UND /.test(line)).map((line) => line.trim().split(/\s+/)[7])
    expect(defined.sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1'])
    const foreign = symbols.filter((line) => / UND /.test(line)).map((line) => line.trim().split(/\s+/)[7] ?? '').filter((name) => /^(inflate|deflate|crc32|ZSTD|LZ4)/.test(name))
    expect(foreign).toEqual([])
  })
})

// Equal sources give equal bytes: whatever the number of threads and CPUs, the umask, the time zone, the place, and the order in which files were made.

import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CreateOptions } from '../../src/build/index.ts'
import { build, tarSource } from '../support/built-image.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const BUILDER = path.join(ROOT, 'bin/nydus-image')
const RANDOM_TREE = path.join(ROOT, 'fixtures/tools/random_tree.py')
const SEED = 20

/** How a program is run; the default is umask 022, UTC and all CPUs. */
interface Circumstances { readonly umask?: string; readonly env?: NodeJS.ProcessEnv; readonly prefix?: readonly string[]; readonly source?: string }

/** The same options for the program and for the library. */
const VARIANTS: readonly { readonly argv: readonly string[]; readonly options: Partial<CreateOptions> }[] = [
  { argv: [], options: {} },
  { argv: ['--compressor', 'lz4_block', '--chunk-size', '0x1000', '--batch-size', '0x1000'], options: { compressor: 'lz4_block', chunkSize: 0x1000, batchSize: 0x1000 } },
]

let base: string
let runs = 0
const at = (name: string) => path.join(base, name)

beforeAll(() => {
  base = mkdtempSync(path.join(tmpdir(), 'nydus-same-'))
  for (const [name, seed] of [['tree', SEED], ['upper', SEED + 1]] as const) {
    plant(at(name), seed)
    // tar says that it leaves out sockets
    execFileSync('tar', ['--format=pax', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-cf', at(`${name}.tar`), '-C', at(name), '.'], { stdio: 'ignore' })
  }
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

function plant(directory: string, seed: number, ...flags: string[]): void {
  execFileSync('python3', [RANDOM_TREE, directory, String(seed), ...flags], { stdio: ['ignore', 'ignore', 'inherit'] })
}

function run(argv: readonly string[], { umask = '022', env = { TZ: 'UTC' }, prefix = [] }: Circumstances): void {
  execFileSync('sh', ['-c', 'umask "$1"; shift; exec "$@"', 'sh', umask, ...prefix, BUILDER, ...argv], { env: { ...process.env, ...env }, input: '/\n', stdio: ['pipe', 'ignore', 'inherit'] })
}

/** Names and contents of everything in a directory. */
function digestsOf(directory: string): string[] {
  return readdirSync(directory).sort().map((name) => `${name} ${sha256(readFileSync(path.join(directory, name)))}`)
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** A directory of its own for each run. */
function output(): string {
  const directory = at(`output-${runs++}`)
  mkdirSync(directory)
  return directory
}

function createDirectory(argv: readonly string[], circumstances: Circumstances = {}): string[] {
  const directory = output()
  run(['create', '-l', 'warn', '-B', path.join(directory, 'image.boot'), '-D', directory, ...argv, circumstances.source ?? at('tree')], circumstances)
  return digestsOf(directory)
}

/** Two layers, and what they merge to. */
function layersAndMerge(argv: readonly string[], circumstances: Circumstances = {}): string[] {
  const directory = output()
  for (const name of ['tree', 'upper']) {
    run(['create', '-l', 'warn', '-t', 'tar-rafs', '--features', 'blob-toc', '-B', path.join(directory, `${name}.boot`), '-D', directory, ...argv, at(`${name}.tar`)], circumstances)
  }
  run(['merge', '-l', 'warn', '--prefetch-policy', 'fs', '-B', path.join(directory, 'merged.boot'), path.join(directory, 'tree.boot'), path.join(directory, 'upper.boot')], circumstances)
  return digestsOf(directory)
}

const CIRCUMSTANCES: readonly (readonly [what: string, circumstances: () => Circumstances])[] = [
  ['again', () => ({})],
  ['on one CPU', () => ({ prefix: ['taskset', '-c', '0'] })],
  ['with the umask 0', () => ({ umask: '0' })],
  ['with the umask 077', () => ({ umask: '077' })],
  ['in Tokyo', () => ({ env: { TZ: 'Asia/Tokyo', LC_ALL: 'C', LANG: 'ja_JP.UTF-8' } })],
  ['with another temporary directory and home', () => ({ env: { TZ: 'UTC', TMPDIR: output(), HOME: '/nonexistent' } })],
  ['of a copy elsewhere, made in the opposite order', () => {
    const source = at('elsewhere/deeper/tree')
    if (!existsSync(source)) plant(source, SEED, '--reversed')
    return { source }
  }],
]

describe.each(VARIANTS)('a build with [$argv]', ({ argv, options }) => {
  let image: string[]
  let layers: string[]
  beforeAll(() => {
    image = createDirectory(argv)
    layers = layersAndMerge(argv)
  })

  it.each(CIRCUMSTANCES)('%s gives the same bytes', (_what, circumstances) => {
    expect(createDirectory(argv, circumstances())).toEqual(image)
    expect(layersAndMerge(argv, circumstances())).toEqual(layers)
  })

  it('gives the bytes of the program with 1, 2 and 8 threads', async () => {
    for (const threads of [1, 2, 8]) {
      const ofDirectory = await build({ type: 'directory', path: at('tree') }, { ...options, threads })
      expect(image).toEqual(expect.arrayContaining([`${ofDirectory.blob!.blobId} ${sha256(ofDirectory.bytes)}`, `image.boot ${sha256(ofDirectory.bootstrap)}`]))
      const ofTar = await build(tarSource(readFileSync(at('tree.tar'))), { ...options, threads, blobToc: true })
      expect(layers).toEqual(expect.arrayContaining([`${ofTar.blob!.blobId} ${sha256(ofTar.bytes)}`, `tree.boot ${sha256(ofTar.bootstrap)}`]))
    }
  })

  it('gives other bytes for another source: one changed byte, one changed mode', () => {
    plant(at('changed'), SEED)
    const file = readdirSync(at('changed'), { recursive: true, encoding: 'latin1' }).map((name) => Buffer.from(path.join(at('changed'), name), 'latin1'))
      .find((name) => lstatSync(name).isFile() && lstatSync(name).nlink === 1 && lstatSync(name).size > 0)!
    chmodSync(file, lstatSync(file).mode ^ 0o001)
    const [blob, bootstrap] = [/^[0-9a-f]{64} /, /^image\.boot /].map((name) => (lines: readonly string[]) => lines.find((line) => name.test(line)))
    const otherMode = createDirectory(argv, { source: at('changed') })
    expect([blob!(otherMode) === blob!(image), bootstrap!(otherMode) === bootstrap!(image)]).toEqual([true, false])
    const bytes = readFileSync(file)
    bytes[0]! ^= 1
    writeFileSync(file, bytes)
    utimesSync(file, 1, 1)
    const otherByte = createDirectory(argv, { source: at('changed') })
    expect([blob!(otherByte) === blob!(image), bootstrap!(otherByte) === bootstrap!(otherMode)]).toEqual([false, false])
    rmSync(at('changed'), { recursive: true })
  })
})

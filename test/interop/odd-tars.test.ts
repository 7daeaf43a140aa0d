// The 30 tars of fixtures/vectors/odd-tars through bin/nydus-image: upstream's verdict and tree, but where upstream is wrong.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTar, treeOf } from '../support/built-image.ts'
import { seal } from '../../src/format/tar/header.ts'
import { writePax } from '../../src/format/tar/pax.ts'
import { encodeEntry, padding } from '../../src/format/tar/writer.ts'
import { differences, parseScan, type TreeEntry, VECTORS } from '../support/expect.ts'

const BUILDER = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const ODD = path.join(VECTORS, 'odd-tars')

interface Verdict { readonly tar: string; readonly exit: number; readonly tree: readonly TreeEntry[] }
/** Some of what upstream accepts could not even be read back. */
const isUsable = (entry: object): boolean => !('error' in entry)
const verdicts = fs.readFileSync(path.join(ODD, 'verdicts.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line))
  .filter(({ type }) => type === 'tar-rafs')
  .map(({ tar, exit, tree = [] }): Verdict => ({ tar: tar.replace(/\.tar$/, ''), exit, tree: parseScan(tree.filter(isUsable).map((entry: object) => JSON.stringify(entry)).join('\n')) }))

/** Where we differ, why, and how: an error, or `path type size` of everything below the root. */
const EXCEPTIONS: Readonly<Record<string, { readonly why: string; readonly error?: RegExp; readonly tree?: readonly string[] }>> = {
  'contiguous': { why: 'upstream refuses contiguous files; every tar program takes them for regular ones', tree: ['/f reg 1'] },
  'dotdot': { why: 'upstream panics', error: /"\.\.\/up".*TAR_UNSAFE_PATH/ },
  'dotdot-inside': { why: 'upstream panics', error: /"a\/\.\.\/b".*TAR_UNSAFE_PATH/ },
  'hardlink-to-symlink': { why: 'upstream refuses it; GNU tar extracts it, and layers of real images have it', tree: ['/h lnk 1', '/s lnk 1'] },
  'missing-parent-sorts-first': { why: 'upstream puts a/inner into z', tree: ['/a dir', '/a/inner reg 1', '/z dir'] },
  'missing-parents': { why: 'upstream loses a/inner', tree: ['/a dir', '/a/inner reg 1', '/b dir', '/b/inner reg 1', '/c dir', '/c/d dir', '/c/d/e reg 1'] },
  'name-256': { why: 'upstream builds an image that no system can use: names have 255 bytes at most', error: /a name of 256 bytes.*TAR_INVALID/ },
  'pax-newline': { why: 'upstream splits PAX records at newlines; their lengths are what counts', tree: ['/f reg 1'] },
  'symlink-4097': { why: 'upstream builds a link that cannot be read: targets have 4095 bytes at most', error: /a link target of 4097 bytes.*TAR_INVALID/ },
}

let work: string
beforeAll(() => { work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-odd-')) })
afterAll(() => fs.rmSync(work, { recursive: true, force: true }))

/** The tree that `create` makes of a tar, or what it says instead. */
function create(name: string, tar: string): { readonly status: number | null; readonly stderr: string; readonly tree: readonly TreeEntry[] } {
  const [bootstrap, blobs] = [path.join(work, `${name}.boot`), path.join(work, `${name}.blobs`)]
  fs.mkdirSync(blobs)
  const { status, stderr } = spawnSync(BUILDER, ['create', '-l', 'error', '-t', 'tar-rafs', '-B', bootstrap, '-D', blobs, tar], { encoding: 'utf8' })
  if (status !== 0) {
    expect([fs.existsSync(bootstrap), fs.readdirSync(blobs)]).toEqual([false, []])
    return { status, stderr, tree: [] }
  }
  return { status, stderr, tree: treeOf(fs.readFileSync(bootstrap), new Map(fs.readdirSync(blobs).map((id) => [id, fs.readFileSync(path.join(blobs, id))]))) }
}

const summary = (tree: readonly TreeEntry[]): string[] => tree.slice(1).map(({ path: name, type, size }) => (type === 'dir' ? `${name} dir` : `${name} ${type} ${size}`))

describe('odd tars', () => {
  it('are thirty, and every exception is one of them', () => {
    expect(verdicts).toHaveLength(30)
    expect(Object.keys(EXCEPTIONS).filter((name) => !verdicts.some(({ tar }) => tar === name))).toEqual([])
  })

  it.each(verdicts.filter(({ tar }) => EXCEPTIONS[tar] === undefined))('$tar: as upstream, exit code $exit', async ({ tar, exit, tree: want }) => {
    const { status, stderr, tree } = create(tar, path.join(ODD, 'tars', `${tar}.tar`))
    expect([status, stderr]).toEqual([exit, exit === 0 ? expect.any(String) : expect.stringMatching(/^Error: .*\[[A-Z_]+\]\n$/)])
    expect(await differences(want, { walk: () => tree })).toEqual([])
  })

  it.each(Object.entries(EXCEPTIONS).map(([name, exception]) => ({ name, ...exception })))('$name: $why', async ({ name, error, tree: want = [] }) => {
    const { status, stderr, tree } = create(name, path.join(ODD, 'tars', `${name}.tar`))
    expect([status, stderr]).toEqual([error === undefined ? 0 : 1, error === undefined ? '' : expect.stringMatching(error)])
    expect(summary(tree)).toEqual(want)
    // an exception that is none any more has to go
    const verdict = verdicts.find(({ tar }) => tar === name)!
    expect(verdict.exit !== status || (await differences(verdict.tree, { walk: () => tree })).length > 0).toBe(true)
  })

  // global-pax.tar has a record of a wrong length (GNU tar refuses it too), so that it says nothing about global headers.
  it('reads a global PAX header, which upstream refuses', () => {
    const records = writePax([['comment', Buffer.from('of git archive')], ['mtime', Buffer.from('77.5')]])
    const header = Buffer.from(encodeEntry({ path: 'pax_global_header', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, size: records.length }))
    header[156] = 'g'.charCodeAt(0)
    seal(header)
    const tar = path.join(work, 'global.tar')
    fs.writeFileSync(tar, Buffer.concat([header, records, padding(records.length), makeTar([{ path: 'f', data: 'x', mtime: 5 }])]))
    const { status, tree } = create('global', tar)
    expect([status, summary(tree), tree[1]?.mtime]).toEqual([0, ['/f reg 1'], [77, 500_000_000]])
  })
})

// How upstream's Go tools call `nydus-image`, replayed: argv, stdin, FIFOs on both ends, what they look for in the answers.
// SPEC: spec-surface.md A.9, A.10 (recorded from nydus-snapshotter's converter, nydusify and the smoke tests).

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '../..')
const BUILDER = path.join(ROOT, 'bin/nydus-image')

let work: string
let layers: string[]

beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-argv-'))
  layers = ['lower', 'upper'].map((name) => {
    const tree = path.join(work, `${name}.d`)
    fs.mkdirSync(path.join(tree, 'etc'), { recursive: true })
    fs.writeFileSync(path.join(tree, 'etc', name), `${name}\n`.repeat(5000))
    fs.writeFileSync(path.join(tree, 'both'), name)
    const tar = path.join(work, `${name}.tar`)
    execFileSync('tar', ['-cf', tar, '-C', tree, '.'])
    return tar
  })
})

afterAll(() => fs.rmSync(work, { recursive: true, force: true }))

function builder(argv: readonly string[], input = '') {
  return spawnSync(BUILDER, argv, { encoding: 'utf8', input, cwd: work })
}

function finished(child: ChildProcess): Promise<{ code: number | null; stderr: string }> {
  let stderr = ''
  child.stderr?.on('data', (data) => { stderr += data })
  return new Promise((resolve, reject) => child.on('error', reject).on('close', (code) => resolve({ code, stderr })))
}

/** converter.Pack: the builder reads a FIFO that we write and writes a FIFO that we read. */
async function pack(tar: string, ...more: string[]): Promise<{ blob: Buffer; digest: string }> {
  const folder = fs.mkdtempSync(path.join(work, 'pack-'))
  const [source, blob] = ['blob.targz', 'blob.rafs'].map((name) => path.join(folder, name))
  execFileSync('mkfifo', [source!, blob!])
  const child = spawn(BUILDER, ['create', '--log-level', 'warn', '--prefetch-policy', 'fs', '--blob', blob!, '--whiteout-spec', 'none', '--fs-version', '6',
    '--type', 'tar-rafs', '--blob-inline-meta', '--features', 'blob-toc', ...more, source!], { stdio: ['pipe', 'ignore', 'pipe'] })
  child.stdin.end('/')
  const done = finished(child)
  const chunks: Buffer[] = []
  const reading = (async () => { for await (const chunk of fs.createReadStream(blob!)) chunks.push(chunk as Buffer) })()
  await new Promise<void>((resolve, reject) => fs.createReadStream(tar).pipe(fs.createWriteStream(source!)).on('finish', resolve).on('error', reject))
  await reading
  expect(await done).toEqual({ code: 0, stderr: '' })
  const bytes = Buffer.concat(chunks)
  return { blob: bytes, digest: createHash('sha256').update(bytes).digest('hex') }
}

/** The bootstrap as the Go converter takes it out of a packed layer: by the TOC at the end. */
function bootstrapOf(blob: Buffer): Buffer {
  const header = blob.subarray(-512)
  expect(header.toString('latin1', 0, 13)).toBe('rafs.blob.toc')
  const toc = blob.subarray(-512 - Number.parseInt(header.toString('latin1', 124, 135), 8), -512)
  for (let at = 0; at < toc.length; at += 128) {
    const entry = toc.subarray(at, at + 128)
    if (entry.toString('latin1', 8, 24).replace(/\0+$/, '') !== 'image.boot') continue
    const [offset, size] = [entry.readBigUInt64LE(56), entry.readBigUInt64LE(64)].map(Number)
    const file = path.join(work, 'packed.zst')
    fs.writeFileSync(file, blob.subarray(offset!, offset! + size!))
    return (entry.readUInt32LE(0) & 0xf) === 2 ? execFileSync('zstd', ['-dc', file]) : fs.readFileSync(file)
  }
  throw new Error('the TOC has no image.boot')
}

describe('nydus-image as the Go tools call it', () => {
  it('answers the capability probe of converter.Pack on stdout with exit 0', () => {
    const { status, stdout, stderr } = builder(['create', '-h'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    for (const word of ['--type', 'tar-rafs', '--batch-size', '--encrypt']) expect(stdout).toContain(word)
  })

  it('says its version as the tools look for it', () => {
    expect(builder(['--version']).stdout).toMatch(/Version:\s*(v.*)/)
    expect(builder(['--version']).stdout).toMatch(/Git Commit:\s*(.+)/)
  })

  it('packs layers between FIFOs, merges them, checks and inspects the result', async () => {
    const packed = []
    for (const tar of layers) packed.push(await pack(tar))
    const sources = packed.map(({ blob, digest }) => {
      const file = path.join(work, digest)
      fs.writeFileSync(file, bootstrapOf(blob))
      return file
    })
    const merged = builder(['merge', '--log-level', 'warn', '--prefetch-policy', 'fs', '--output-json', 'merge.json', '--bootstrap', 'merged.boot', ...sources,
      '--blob-digests', packed.map(({ digest }) => digest).join(','), '--blob-sizes', packed.map(({ blob }) => blob.length).join(',')], '/etc\n')
    expect({ status: merged.status, stderr: merged.stderr }).toEqual({ status: 0, stderr: '' })
    const result = JSON.parse(fs.readFileSync(path.join(work, 'merge.json'), 'utf8'))
    // In the order of their first use in the merged tree: /both is the upper layer's.
    expect(result.blobs).toEqual(packed.map(({ digest }) => digest).reverse())
    expect(result).toMatchObject({ fs_version: '6', compressor: 'zstd', bootstrap: 'merged.boot' })

    const checked = builder(['check', '--log-level', 'warn', '--output-json', 'check.json', '--bootstrap', 'merged.boot'])
    expect({ status: checked.status, stderr: checked.stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(fs.readFileSync(path.join(work, 'check.json'), 'utf8'))).toMatchObject({ blobs: result.blobs, fs_version: '6', compressor: 'zstd' })

    // COMPAT: nydusify parses stdout and stderr together; the snapshotter passes `-R blobs` as one argument.
    for (const argv of [['inspect', 'merged.boot', '--request', 'blobs'], ['inspect', '-R blobs', 'merged.boot']]) {
      const inspected = builder(argv)
      expect(inspected.stderr).toBe('')
      expect(inspected.stdout).toContain(`"blob_id":"${packed[0]!.digest}"`)
      expect(JSON.parse(inspected.stdout)).toHaveLength(2)
    }
  })

  it('unpacks into a FIFO what it packed', async () => {
    const { blob } = await pack(layers[0]!)
    const [boot, data, fifo] = ['one.boot', 'one.blob', 'out.fifo'].map((name) => path.join(work, name))
    fs.writeFileSync(boot!, bootstrapOf(blob))
    fs.writeFileSync(data!, blob)
    execFileSync('mkfifo', [fifo!])
    const child = spawn(BUILDER, ['unpack', '--log-level', 'warn', '--bootstrap', boot!, '--output', fifo!, '--blob', data!], { stdio: ['ignore', 'ignore', 'pipe'] })
    const done = finished(child)
    const listing = execFileSync('sh', ['-c', 'cat "$1" | tar -t', '-', fifo!], { encoding: 'utf8' })
    expect(await done).toEqual({ code: 0, stderr: '' })
    expect(listing.split('\n').filter(Boolean).sort()).toEqual(['both', 'etc/', 'etc/lower'])
  })

  it('builds a directory the way the older converter and nydusify build do', () => {
    const tree = path.join(work, 'lower.d')
    const old = builder(['create', '--log-level', 'warn', '--prefetch-policy', 'fs', '--blob', 'old.blob', '--source-type', 'directory', '--whiteout-spec', 'none', '--fs-version', '6',
      '--inline-bootstrap', tree], '/')
    expect({ status: old.status, stderr: old.stderr }).toEqual({ status: 0, stderr: '' })
    const workflow = builder(['create', '--bootstrap', 'w.boot', '--log-level', 'warn', '--whiteout-spec', 'oci', '--output-json', 'w.json', '--blob', 'w.blob', '--fs-version', '6', tree])
    expect({ status: workflow.status, stderr: workflow.stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(fs.readFileSync(path.join(work, 'w.json'), 'utf8')).version).toMatch(/^v/)
  })

  it('refuses contradicting options in the words that the smoke tests look for', () => {
    const base = ['create', '-t', 'targz-rafs', '--bootstrap', 'x.boot', '--blob-cache-dir', 'cache']
    for (const [more, words] of [
      [['--blob-dir', 'd'], `'--blob-dir <blob-dir>' cannot be used with '--blob-cache-dir <blob-cache-dir>'`],
      [['--blob', 'b'], `'--blob <blob>' cannot be used with '--blob-cache-dir <blob-cache-dir>'`],
      [['--compressor', 'none'], `'--compressor <compressor>' cannot be used with '--blob-cache-dir <blob-cache-dir>'`],
    ] as const) {
      const { status, stderr } = builder([...base, ...more, layers[0]!])
      expect(status).not.toBe(0)
      expect(stderr).toContain(words)
    }
  })

  it('exits 1 on a failure, 2 on a usage error or inconsistent layers', () => {
    expect(builder(['check', '-B', '/dev/null']).status).toBe(1)
    expect(builder(['create', '--no-such-option']).status).toBe(2)
    expect(builder([]).status).toBe(0)
    const tree = path.join(work, 'lower.d')
    for (const [name, size] of [['a', '0x100000'], ['b', '0x10000']]) builder(['create', '-l', 'warn', '-B', `${name}.boot`, '--blob', `${name}.blob`, '--chunk-size', size!, tree])
    const merged = builder(['merge', '--bootstrap', 'm.boot', 'a.boot', 'b.boot'])
    expect(merged.status).toBe(2)
    expect(fs.existsSync(path.join(work, 'm.boot'))).toBe(false)
  })

  for (const type of ['estargz-rafs', 'estargz-ref', 'estargztoc-ref', 'targz-ref', 'tar-tarfs', 'stargz_index']) {
    it(`refuses --type ${type} by name`, () => {
      const { status, stderr } = builder(['create', '-t', type, '--blob-id', 'x', '-B', 'n.boot', '-D', work, layers[0]!])
      expect(status).toBe(1)
      expect(stderr).toContain(type)
    })
  }
})

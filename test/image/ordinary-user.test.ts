// What a build machine gives: a user without rights or capabilities, a root that cannot be written, one directory that can, little memory.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { createGzip } from 'node:zlib'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { check } from '../../src/index.ts'
import { encodeEntry, endBlocks } from '../../src/format/tar/writer.ts'
import { MiB } from '../../src/core/units.ts'
import { peakOf, PRINT_PEAK } from '../support/peak-memory.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { LayoutMaker } from './make-image.ts'
import { sampleLayout } from './sample.ts'
import { NYDUSIFY, ROOT, temporary } from './support.ts'

/** Runs nydusify as nobody, with nothing but `directory` to write to and no /dev/fuse. */
function asNobody(directory: string, argv: readonly string[]) {
  const command = [process.execPath, NYDUSIFY, ...argv].map((word) => `'${word}'`).join(' ')
  const script = `set -e
    mount --make-rprivate /
    mount -t tmpfs none /dev -o size=64k && mknod -m 666 /dev/null c 1 3
    mount --bind '${directory}' '${directory}'
    mount -o remount,bind,ro /
    cd /
    exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all env HOME=/nonexistent TMPDIR=/nonexistent ${command}`
  return spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' })
}

describe('an ordinary user', () => {
  it('converts device nodes and foreign owners on a read-only root, and checks without a mount', async () => {
    using work = temporary('nobody')
    sampleLayout(work.at('source'))
    fs.mkdirSync(work.at('mine'))
    for (const name of [work.path, work.at('mine')]) fs.chmodSync(name, 0o755)
    fs.chownSync(work.at('mine'), 65534, 65534)
    const target = `oci:${work.at('mine/target')}:n`
    const converted = asNobody(work.at('mine'), ['convert', '--source', `oci:${work.at('source')}:sample`, '--target', target, '--work-dir', work.at('mine/w')])
    expect(converted.status, converted.stderr).toBe(0)
    const checked = asNobody(work.at('mine'), ['check', '--source', `oci:${work.at('source')}:sample`, '--target', target, '--work-dir', work.at('mine/c')])
    expect(checked.status, checked.stderr).toBe(0)
    expect(checked.stderr).toContain('without a mount')
    expect((await check({ source: `oci:${work.at('source')}:sample`, target, workDirectory: work.at('chk') })).findings).toEqual([])
  })
})

describe('a layer with one huge file', () => {
  it('takes no more memory than its pieces, and no more disk than its target', async () => {
    using work = temporary('huge')
    const maker = new LayoutMaker(work.at('source'))
    const size = 2 * 2 ** 30
    // mostly zeros, but no two pieces alike: two GiB to read, little to store
    const piece = Buffer.alloc(4 << 20)
    createHash('sha512').update('x').digest().copy(piece)
    const file = work.at('layer.gz')
    const hash = createHash('sha256')
    const gzip = createGzip({ level: 1 })
    const output = gzip.pipe(fs.createWriteStream(file))
    const write = async (bytes: Uint8Array) => {
      hash.update(bytes)
      if (!gzip.write(bytes)) await once(gzip, 'drain')
    }
    await write(encodeEntry({ path: 'huge', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, size }))
    for (let at = 0; at < size; at += piece.length) {
      const own = Buffer.from(piece)
      own.writeDoubleLE(at, 100)
      await write(own)
    }
    await write(endBlocks())
    gzip.end()
    await once(output, 'finish')
    maker.name(maker.image([{ bytes: fs.readFileSync(file), diffId: `sha256:${hash.digest('hex')}`, mediaType: MEDIA_TYPE.ociLayerGzip }]), 'huge')
    const { status, stderr } = spawnSync(process.execPath, [PRINT_PEAK, NYDUSIFY, 'convert', '--source', `oci:${work.at('source')}:huge`, '--target', `oci:${work.at('target')}:n`, '--work-dir', work.at('w')], { encoding: 'utf8', cwd: ROOT })
    expect(status, stderr).toBe(0)
    expect(peakOf(stderr)).toBeLessThan(256 * MiB)
  })
})

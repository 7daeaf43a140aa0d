// Whole conversions: what is in the target, and that it is the source.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { check, convert, openImage, serveLayout } from '../../src/index.ts'
import { MEDIA_TYPE, NYDUS_ANNOTATION } from '../../src/format/oci/media-types.ts'
import { gzipLayer, LayoutMaker, type Made, named, readJson, sha256, tarOf } from './make-image.ts'
import { sampleLayers, sampleLayout } from './sample.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
let work: string
let source: string
let image: Made

beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-convert-'))
  source = path.join(work, 'source')
  image = sampleLayout(source).image
})

afterAll(() => fs.rmSync(work, { recursive: true, force: true }))

const place = (name: string) => path.join(work, name)

async function expectEqual(target: string, from = `oci:${source}:sample`, more = {}) {
  const report = await check({ source: from, target, workDirectory: place('check'), ...more })
  expect(report.findings).toEqual([])
  return report
}

describe('a converted image', () => {
  it('shows through a mount what its layers say', async () => {
    const result = await convert({ source: `oci:${source}:sample`, target: `oci:${place('plain')}:n`, workDirectory: place('w1') })
    expect(result.action).toBe('converted')
    expect((await expectEqual(`oci:${place('plain')}:n`)).how).toBe('mounted')
    expect((await expectEqual(`oci:${place('plain')}:n`, undefined, { through: 'read' })).how).toMatch(/without a mount/)
    expect(fs.existsSync(place('w1'))).toBe(false)
  })

  it('has the manifest and config that upstream writes', async () => {
    const layout = place('plain')
    const { digest } = named(layout, 'n')
    const manifest = readJson(layout, digest)
    const sourceManifest = readJson(source, image.digest)
    expect(manifest.mediaType).toBe(MEDIA_TYPE.ociManifest)
    expect(manifest.layers.map((one) => one.mediaType)).toEqual([MEDIA_TYPE.nydusBlob, MEDIA_TYPE.nydusBlob, MEDIA_TYPE.nydusBlob, MEDIA_TYPE.ociLayerGzip])
    expect(manifest.layers.slice(0, 3).map((one) => one.annotations)).toEqual(Array(3).fill({ [NYDUS_ANNOTATION.blob]: 'true' }))
    expect(manifest.layers[3]!.annotations).toEqual({ [NYDUS_ANNOTATION.bootstrap]: 'true', [NYDUS_ANNOTATION.fsVersion]: '6' })
    expect(manifest.annotations).toEqual({
      [NYDUS_ANNOTATION.builderVersion]: expect.stringMatching(/^v/), [NYDUS_ANNOTATION.fsVersion]: '6',
      [NYDUS_ANNOTATION.sourceDigest]: image.digest, [NYDUS_ANNOTATION.sourceReference]: 'sample',
    })
    const config = readJson(layout, manifest.config.digest)
    const sourceConfig = readJson(source, sourceManifest.config.digest)
    expect(config.history).toEqual([...sourceConfig.history, { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }])
    const tar = execFileSync('gzip', ['-dc', path.join(layout, 'blobs/sha256', manifest.layers[3]!.digest.slice(7))], { maxBuffer: 1 << 30 })
    expect(config.rootfs.diff_ids).toEqual([...manifest.layers.slice(0, 3).map((one) => one.digest), sha256(tar)])
    const { rootfs: _a, history: _b, ...rest } = config
    const { rootfs: _c, history: _d, ...sourceRest } = sourceConfig
    expect(rest).toEqual(sourceRest)
    fs.writeFileSync(place('boot.tar'), tar)
    const names = execFileSync('tar', ['-tvf', place('boot.tar')], { encoding: 'utf8' }).trim().split('\n').map((line) => line.split(/\s+/))
    expect(names.map((row) => [row[0], row.at(-1)])).toEqual([
      ['drwxr-xr-x', 'image'], ['-r--r--r--', 'image/image.boot'],
      ...manifest.layers.slice(0, 3).map((one) => ['-r--r--r--', `image/${one.digest.slice(7)}.blob.meta`]),
    ])
  })

  it('is the same bytes again, whatever the work directory, umask and time zone', async () => {
    const [before, zone] = [process.umask(0o077), process.env['TZ']]
    process.env['TZ'] = 'Pacific/Kiritimati'
    try {
      const again = await convert({ source: `oci:${source}:sample`, target: `oci:${place('again')}:other`, workDirectory: place('some/where/else') })
      expect(again.target.digest).toBe(named(place('plain'), 'n').digest)
    } finally {
      process.umask(before)
      if (zone === undefined) delete process.env['TZ']
      else process.env['TZ'] = zone
    }
  })

  it('is the same when an external nydus-image builds it as upstream would be asked to', async () => {
    const maker = new LayoutMaker(place('for-ext'))
    maker.name(maker.image(sampleLayers({ foreignLink: false })), 'sample')
    const common = { source: `oci:${place('for-ext')}:sample`, workDirectory: place('w2'), batchSize: 0 }
    const inside = await convert({ ...common, target: `oci:${place('ext')}:inside` })
    const outside = await convert({ ...common, target: `oci:${place('ext')}:outside`, nydusImage: path.join(ROOT, 'bin/nydus-image') })
    expect(outside.target.digest).toBe(inside.target.digest)
    expect(fs.existsSync(place('w2'))).toBe(false)
  })

  it('goes from registry to registry, and leaves out what is there already', async () => {
    await using server = await serveLayout(source)
    const registry = { plainHttp: true }
    const request = { source: `${server.host}/${server.repository}:sample`, target: `${server.host}/other/app:nydus`, sourceRegistry: registry, targetRegistry: registry, workDirectory: place('w3') }
    const first = await convert(request)
    const pushes = (from: number) => server.log.slice(from).filter(({ method, path: where }) => (method === 'PUT' || method === 'PATCH') && where.includes('/blobs/'))
    expect(pushes(0).length).toBeGreaterThanOrEqual(5)
    const before = server.log.length
    const second = await convert(request)
    expect(second.target.digest).toBe(first.target.digest)
    expect(pushes(before)).toEqual([])
    await expectEqual(`${server.host}/other/app:nydus`, undefined, { targetRegistry: registry })
    await expectEqual(`${server.host}/other/app@${first.target.digest}`, undefined, { targetRegistry: registry, through: 'read' })
    await using files = await openImage(`${server.host}/other/app:nydus`, { registry })
    expect((await files.readFile('/change')).toString()).toBe('now a file')
    expect(await files.readdir('/opaque')).toEqual(['new'])
  })

  it('reads and writes archives', async () => {
    execFileSync('skopeo', ['copy', '-q', `oci:${source}:sample`, `oci-archive:${place('in.tar')}:sample`])
    execFileSync('skopeo', ['copy', '-q', `oci:${source}:sample`, `docker-archive:${place('docker.tar')}:sample:1`])
    const plain = named(place('plain'), 'n').digest
    const oci = await convert({ source: `oci-archive:${place('in.tar')}`, target: `oci-archive:${place('out.tar')}:n`, workDirectory: place('w4'), sourceReference: 'sample' })
    expect(readBlobsOf(oci)).toEqual(readBlobsOf(await convert({ source: `oci:${source}:sample`, target: `oci:${place('x')}:n`, workDirectory: place('w4') })))
    await expectEqual(`oci-archive:${place('out.tar')}`)
    await convert({ source: `docker-archive:${place('docker.tar')}`, target: `oci:${place('fromdocker')}:n`, workDirectory: place('w4') })
    await expectEqual(`oci:${place('fromdocker')}:n`, `docker-archive:${place('docker.tar')}`)
    expect(plain).toBe(named(place('x'), 'n').digest)
  })

  it('keeps Docker types, or makes OCI types of them', async () => {
    const layout = place('docker')
    const maker = new LayoutMaker(layout)
    maker.name(maker.image([gzipLayer([{ path: 'a', data: 'a' }], MEDIA_TYPE.dockerLayerGzip)], { docker: true }), 'd')
    for (const [oci, manifestType, bootstrapType, configType] of [
      [false, MEDIA_TYPE.dockerManifest, MEDIA_TYPE.dockerLayerGzip, MEDIA_TYPE.dockerConfig],
      [true, MEDIA_TYPE.ociManifest, MEDIA_TYPE.ociLayerGzip, MEDIA_TYPE.ociConfig],
    ] as const) {
      const { target } = await convert({ source: `oci:${layout}:d`, target: `oci:${place('types')}:${oci}`, oci, workDirectory: place('w5') })
      const manifest = readJson(place('types'), target.digest)
      expect([target.mediaType, manifest.mediaType, manifest.layers.at(-1)!.mediaType, manifest.config.mediaType]).toEqual([manifestType, manifestType, bootstrapType, configType])
    }
  })

  it('names its source as subject when asked', async () => {
    const { target } = await convert({ source: `oci:${source}:sample`, target: `oci:${place('subject')}:n`, referrer: true, workDirectory: place('w6') })
    expect(readJson(place('subject'), target.digest).subject).toEqual({ mediaType: image.mediaType, digest: image.digest, size: image.size })
  })
})

describe('layers of every kind', () => {
  const layout = () => place('kinds')
  const convertLayers = async (name: string, layers: Parameters<LayoutMaker['image']>[0]) => {
    const maker = new LayoutMaker(layout())
    maker.name(maker.image(layers), name)
    await convert({ source: `oci:${layout()}:${name}`, target: `oci:${place('kinds-out')}:${name}`, workDirectory: place('w7') })
    await expectEqual(`oci:${place('kinds-out')}:${name}`, `oci:${layout()}:${name}`)
    return readJson(place('kinds-out'), named(place('kinds-out'), name).digest)
  }

  it('reads zstd and uncompressed layers, whatever their media type claims', async () => {
    const tar = tarOf([{ path: 'f', data: 'content' }, { path: 'g', data: 'more' }])
    fs.writeFileSync(place('l.tar'), tar)
    const zstd = execFileSync('zstd', ['-qc', place('l.tar')])
    await convertLayers('zstd', [{ bytes: zstd, diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayerZstd }])
    await convertLayers('none', [{ bytes: tar, diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayer }])
    await convertLayers('liar', [{ bytes: zstd, diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayerGzip }])
  })

  it('makes an image without layers, and with empty ones', async () => {
    expect((await convertLayers('nothing', [])).layers).toHaveLength(1)
    expect((await convertLayers('empty', [gzipLayer([]), gzipLayer([{ path: 'x', data: '1' }])])).layers).toHaveLength(3)
  })

  it('lists a layer that occurs twice twice, and packs it once', async () => {
    const twice = gzipLayer([{ path: 'x', data: 'again' }])
    const { layers } = await convertLayers('twice', [twice, gzipLayer([{ path: '.wh.x' }]), twice])
    expect(layers[0]!.digest).toBe(layers[2]!.digest)
    expect(layers).toHaveLength(4)
  })
})

describe('a source that is not what it says', () => {
  const broken = async (name: string, change: (maker: LayoutMaker) => Made) => {
    const layout = place(`broken-${name}`)
    const maker = new LayoutMaker(layout)
    maker.name(change(maker), 'x')
    return convert({ source: `oci:${layout}:x`, target: `oci:${place('broken-out')}:${name}`, workDirectory: place('w8') })
  }

  it('is refused when a layer does not unpack to its diffID', async () => {
    await expect(broken('diff', (maker) => maker.image([{ ...sampleLayers()[0]!, diffId: sha256('other') }]))).rejects.toMatchObject({ code: 'IMAGE_INVALID' })
  })

  it('is refused when a layer does not hash to its digest', async () => {
    await expect(broken('digest', (maker) => {
      const made = maker.image([sampleLayers()[2]!])
      const layer = readJson(maker.directory, made.digest).layers[0]!
      const file = path.join(maker.directory, 'blobs/sha256', layer.digest.slice(7))
      const bytes = fs.readFileSync(file)
      bytes[bytes.length - 1]! ^= 1
      fs.writeFileSync(file, bytes)
      return made
    })).rejects.toMatchObject({ code: expect.stringMatching(/REGISTRY_DIGEST_MISMATCH|CODEC_CORRUPT/) })
    expect(fs.existsSync(path.join(place('broken-out'), 'index.json')) && fs.readFileSync(path.join(place('broken-out'), 'index.json'), 'utf8')).not.toContain('digest"')
  })

  it('is refused when config and manifest disagree on the number of layers', async () => {
    await expect(broken('count', (maker) => maker.image([sampleLayers()[0]!], { config: { rootfs: { type: 'layers', diff_ids: [] } } }))).rejects.toMatchObject({ code: 'IMAGE_INVALID' })
  })
})

function readBlobsOf(result: Awaited<ReturnType<typeof convert>>) {
  return result.layers.map(({ blob }) => blob)
}

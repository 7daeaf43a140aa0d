// What registries hold besides plain images: each is converted, copied or refused by name, with its own exit code, in --output-json, too.

import fs from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { REFUSALS } from '../../src/image/index.ts'
import { gzipLayer, LayoutMaker, type Made, named, readJson } from './make-image.ts'
import { nydusify, temporary } from './support.ts'

const amd64 = { os: 'linux', architecture: 'amd64' }
const arm64 = { os: 'linux', architecture: 'arm64' }
const windows = { os: 'windows', architecture: 'amd64', 'os.version': '10.0.17763' }
const layer = (data = 'x') => gzipLayer([{ path: 'file', data }])

let work: ReturnType<typeof temporary>
let maker: LayoutMaker

beforeAll(() => {
  work = temporary('refusals')
  maker = new LayoutMaker(work.at('source'))
})
afterAll(() => work[Symbol.dispose]())

let serial = 0
function convert(made: Made, ...more: string[]) {
  const name = `i${serial++}`
  maker.name(made, name)
  const json = work.at(`${name}.json`)
  const ran = nydusify(['convert', '--source', `oci:${work.at('source')}:${name}`, '--target', `oci:${work.at('target')}:${name}`, '--work-dir', work.at('w'), '--output-json', json, ...more])
  const written = fs.existsSync(work.at('target/index.json')) ? JSON.parse(fs.readFileSync(work.at('target/index.json'), 'utf8')).manifests : []
  const published = written.some((one: { annotations: Record<string, string> }) => one.annotations['org.opencontainers.image.ref.name'] === name)
  return { ...ran, outcome: JSON.parse(fs.readFileSync(json, 'utf8')), published, name }
}

const foreign = () => ({ ...layer(), mediaType: MEDIA_TYPE.dockerForeignLayerGzip })
const attestation = (subject: Made): Made & { platform: unknown; annotations: unknown } => ({
  ...maker.image([{ bytes: Buffer.from('{}'), diffId: layer().diffId, mediaType: 'application/vnd.in-toto+json' }]),
  platform: { os: 'unknown', architecture: 'unknown' }, annotations: { 'vnd.docker.reference.type': 'attestation-manifest', 'vnd.docker.reference.digest': subject.digest },
})

describe('refused by name', () => {
  it.each([
    ['schema-1', () => maker.json({ schemaVersion: 1, name: 'a', tag: 'b', fsLayers: [], history: [] }, MEDIA_TYPE.dockerSchema1Signed)],
    ['artifact', () => maker.json({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, artifactType: 'application/vnd.example.chart', config: maker.json({}, MEDIA_TYPE.ociEmptyJson), layers: [] }, MEDIA_TYPE.ociManifest)],
    ['attestation', () => maker.index([attestation(maker.image([layer()]))])],
    ['windows', () => maker.image([layer()], { config: { os: 'windows' } })],
    ['foreign-layer', () => maker.image([layer('1'), foreign()])],
    ['encrypted-layer', () => maker.image([{ ...layer(), mediaType: `${MEDIA_TYPE.ociLayerGzip}+encrypted` }])],
    ['layer-type', () => maker.image([{ ...layer(), mediaType: 'application/vnd.example.squashfs' }])],
    ['platform', () => maker.index([{ ...maker.image([layer()]), platform: { os: 'linux', architecture: 's390x' } }])],
  ] as const)('%s', (reason, make) => {
    const { code, outcome, stderr, published } = convert(make(), ...(reason === 'attestation' ? ['--all-platforms'] : []))
    expect({ code, Outcome: outcome.Outcome, Reason: outcome.Reason, Code: outcome.Code, ExitCode: outcome.ExitCode, published })
      .toEqual({ code: REFUSALS[reason].exitCode, Outcome: 'refused', Reason: reason, Code: 'IMAGE_UNSUPPORTED', ExitCode: REFUSALS[reason].exitCode, published: false })
    expect(stderr).toContain(REFUSALS[reason].meaning)
  })

  it('has a code of its own for each kind of image', () => {
    const codes = Object.values(REFUSALS).map(({ exitCode }) => exitCode)
    expect(new Set(codes).size).toBe(codes.length)
  })

  it.each([['--fs-version=5'], ['--oci-ref'], ['--reverse'], ['--backend-type=oss']])('%s, which comes later', (flag) => {
    const { code, outcome } = convert(maker.image([layer()]), flag)
    expect({ code, Reason: outcome.Reason }).toEqual({ code: 1, Reason: 'not-here' })
  })
})

describe('indexes', () => {
  it('become the one image that was asked for, without attestations', () => {
    const image = maker.image([layer('a')])
    const { code, outcome, name } = convert(maker.index([{ ...image, platform: amd64 }, { ...maker.image([layer('b')], { config: { architecture: 'arm64' } }), platform: arm64 }, attestation(image)]))
    expect({ code, Outcome: outcome.Outcome }).toEqual({ code: 0, Outcome: 'converted' })
    expect(named(work.at('target'), name).mediaType).toBe(MEDIA_TYPE.ociManifest)
  })

  it('keep all platforms with --all-platforms, and say what they leave out', () => {
    const image = maker.image([layer('a')])
    const { code, outcome, name, stderr } = convert(maker.index([
      { ...image, platform: amd64 }, { ...maker.image([layer('b')], { config: { architecture: 'arm64' } }), platform: arm64 },
      { ...maker.image([layer('c')], { config: { os: 'windows' } }), platform: windows }, attestation(image),
    ]), '--all-platforms')
    expect(code).toBe(0)
    const made = named(work.at('target'), name)
    const index = readJson(work.at('target'), made.digest)
    expect(made.mediaType).toBe(MEDIA_TYPE.ociIndex)
    expect(index.manifests.map(({ platform }) => platform)).toEqual([amd64, arm64])
    expect(outcome.Skipped.map(({ Reason }: { Reason: string }) => Reason).sort()).toEqual(['attestation', 'windows'])
    expect(stderr).toContain('left out')
  })

  it('take several platforms by name', () => {
    const { code, name } = convert(maker.index([{ ...maker.image([layer('a')]), platform: amd64 }, { ...maker.image([layer('b')]), platform: arm64 }, { ...maker.image([layer('c')]), platform: { os: 'linux', architecture: 'riscv64' } }]), '--platform', 'linux/amd64,linux/arm64')
    expect(code).toBe(0)
    expect((readJson(work.at('target'), named(work.at('target'), name).digest)).manifests).toHaveLength(2)
  })

  it('show both kinds with --merge-platform', () => {
    const image = maker.image([layer('a')])
    const { code, name } = convert(maker.index([{ ...image, platform: amd64 }, attestation(image)]), '--merge-platform')
    expect(code).toBe(0)
    const target = work.at('target')
    const index = readJson(target, named(target, name).digest)
    expect(index.manifests.map((one) => one.artifactType)).toEqual([undefined, MEDIA_TYPE.nydusArtifact])
    expect(index.manifests.map((one) => one.platform)).toEqual([amd64, amd64])
    const [twin, nydus] = index.manifests.map((one) => readJson(target, one.digest))
    expect(nydus!.config.mediaType).toBe(MEDIA_TYPE.nydusConfig)
    expect(twin!.layers[0]).toEqual({ mediaType: MEDIA_TYPE.ociLayerGzip, digest: 'sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1', size: 32, annotations: { 'containerd.io/snapshot/nydus-empty-layer': 'true' } })
    const config = readJson(target, twin!.config.digest)
    expect(config.rootfs.diff_ids[0]).toBe('sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef')
    expect(config.history[0]).toEqual({ created_by: 'Nydus Converter', comment: 'Nydus Empty Layer' })
    const check = nydusify(['check', '--source', `oci:${work.at('source')}:${name}`, '--target', `oci:${target}:${name}`, '--multi-platform', '--work-dir', work.at('chk')])
    expect(check.stderr).toContain('is verified')
    expect(check.code).toBe(0)
  })
})

describe('a Nydus image', () => {
  it('goes over as it is', () => {
    const first = convert(maker.image([layer('a')]))
    const again = nydusify(['convert', '--source', `oci:${work.at('target')}:${first.name}`, '--target', `oci:${work.at('copy')}:n`, '--work-dir', work.at('w'), '--output-json', work.at('copy.json')])
    expect(again.code).toBe(0)
    expect(named(work.at('copy'), 'n').digest).toBe(named(work.at('target'), first.name).digest)
    expect(JSON.parse(fs.readFileSync(work.at('copy.json'), 'utf8'))).toMatchObject({ Outcome: 'copied', ExitCode: 0 })
  })
})

describe('sizes', () => {
  it('are told when the target is not smaller', () => {
    const { stderr, outcome } = convert(maker.image([layer('tiny')]))
    expect(outcome.TargetImageSize).toBeGreaterThan(outcome.SourceImageSize)
    expect(stderr).toMatch(new RegExp(`larger than the source: ${outcome.TargetImageSize} bytes instead of ${outcome.SourceImageSize} `))
  })
})

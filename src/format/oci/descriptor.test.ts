import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { MAX_DESCRIPTORS, parseImageConfig, parseIndex, parseManifest } from './descriptor.ts'
import { asDigest, isDigest, sha256Digest, splitDigest } from './digest.ts'
import { isIndexType, isManifestType, isSchema1Type, layerKind, MEDIA_TYPE, ociMediaType } from './media-types.ts'

const digest = `sha256:${'a'.repeat(64)}`
const layer = { mediaType: MEDIA_TYPE.ociLayerGzip, digest, size: 3 }
const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: { mediaType: MEDIA_TYPE.ociConfig, digest, size: 2 }, layers: [{ ...layer, annotations: { a: 'b' }, urls: ['https://x/y'] }], annotations: { k: 'v' } }
const index = { schemaVersion: 2, manifests: [{ mediaType: MEDIA_TYPE.ociManifest, digest, size: 9, platform: { architecture: 'arm64', os: 'linux', variant: 'v8', 'os.features': ['f'] }, artifactType: 'x/y' }] }
const config = { architecture: 'amd64', os: 'linux', config: { Env: ['A=B'] }, rootfs: { type: 'layers', diff_ids: [digest] }, history: [{ created_by: 'x', empty_layer: true }], container_config: { Hostname: 'h' } }

const messageOf = (run: () => unknown): string => {
  try { run() } catch (error) { if (hasCode(error, 'FORMAT_INVALID')) return error.message; throw error }
  return ''
}

describe('manifests, indexes, configs', () => {
  it('come back as they were sent', () => {
    expect(parseManifest(JSON.stringify(manifest))).toEqual(manifest)
    expect(parseManifest(Buffer.from(JSON.stringify(manifest)))).toEqual(manifest)
    expect(parseIndex(JSON.stringify(index))).toEqual(index)
    expect(parseImageConfig(JSON.stringify(config))).toEqual(config)
  })
  it('tolerates null where Go writes null for nothing', () => {
    expect(parseManifest(JSON.stringify({ ...manifest, layers: null, annotations: null })).layers).toEqual([])
    expect(parseIndex('{"schemaVersion":2,"manifests":null}').manifests).toEqual([])
    expect(parseImageConfig('{"os":"linux","architecture":"amd64","history":null,"rootfs":{"type":"layers","diff_ids":null}}').rootfs.diff_ids).toEqual([])
  })
  it.each([
    ['[]', 'manifest is not an object'], ['{', 'manifest is not JSON'], ['{"schemaVersion":1}', 'manifest.schemaVersion is not 2'],
    [JSON.stringify({ ...manifest, layers: [{ ...layer, size: -1 }] }), 'layers[0].size is no byte count'],
    [JSON.stringify({ ...manifest, layers: [{ ...layer, size: 2 ** 60 }] }), 'layers[0].size is no byte count'],
    [JSON.stringify({ ...manifest, layers: [{ ...layer, digest: 'sha256:x' }] }), 'layers[0].digest: "sha256:x" is no sha256 or sha512 digest'],
    [JSON.stringify({ ...manifest, layers: {} }), 'layers is not a list'],
    [JSON.stringify({ ...manifest, config: undefined }), 'config is not an object'],
    [JSON.stringify({ ...manifest, annotations: { a: 1 } }), 'manifest.annotations["a"] is not a string'],
    [JSON.stringify({ ...manifest, layers: Array.from({ length: MAX_DESCRIPTORS + 1 }, () => 0) }), `layers has more than ${MAX_DESCRIPTORS} items`],
  ])('names the wrong field %#', (json, message) => expect(messageOf(() => parseManifest(json))).toBe(message))

  it('refuses a document that is a manifest and an index at once', () => {
    expect(messageOf(() => parseManifest(JSON.stringify({ ...manifest, manifests: [] })))).toContain('manifest.manifests')
    expect(messageOf(() => parseIndex(JSON.stringify({ ...manifest, ...index })))).toContain('index.config')
  })
  it('answers any JSON with a value or FORMAT_INVALID', () => {
    fc.assert(fc.property(fc.json(), fc.constantFrom(parseManifest, parseIndex, parseImageConfig), (json, parse) => { messageOf(() => parse(json)) }))
    const shape = fc.record({ schemaVersion: fc.constantFrom<unknown>(2, 1, '2'), config: fc.jsonValue(), layers: fc.array(fc.jsonValue()), manifests: fc.jsonValue() }, { requiredKeys: [] })
    fc.assert(fc.property(shape, fc.constantFrom(parseManifest, parseIndex), (value, parse) => { messageOf(() => parse(JSON.stringify(value))) }))
  })
})

describe('digests', () => {
  it('are lower-case hex of the right length', () => {
    expect([digest, `sha512:${'0'.repeat(128)}`, digest.toUpperCase(), `${digest}0`, 'sha256:', `md5:${'0'.repeat(32)}`].map(isDigest)).toEqual([true, true, false, false, false, false])
    expect(splitDigest(asDigest(digest))).toEqual({ algorithm: 'sha256', hex: 'a'.repeat(64) })
    expect(sha256Digest('b'.repeat(64))).toBe(`sha256:${'b'.repeat(64)}`)
    expect(messageOf(() => sha256Digest('XY'))).toContain('no sha256')
  })
})

describe('media types', () => {
  it('say how a layer is packed and whether it may be pushed', () => {
    expect(layerKind(MEDIA_TYPE.dockerForeignLayerGzip)).toEqual({ compression: 'gzip', foreign: true })
    expect(layerKind(MEDIA_TYPE.ociLayerZstd)).toEqual({ compression: 'zstd', foreign: false })
    expect(layerKind(MEDIA_TYPE.nydusBlob)).toBeUndefined()
    expect([isIndexType(MEDIA_TYPE.dockerManifestList), isManifestType(MEDIA_TYPE.dockerManifest), isSchema1Type(MEDIA_TYPE.dockerSchema1Signed)]).toEqual([true, true, true])
    expect(ociMediaType(MEDIA_TYPE.dockerLayerGzip)).toBe(MEDIA_TYPE.ociLayerGzip)
    expect(ociMediaType('x/y')).toBe('x/y')
  })
})

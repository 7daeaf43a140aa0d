import { gunzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { Descriptor, ImageConfig, Manifest } from '../format/oci/descriptor.ts'
import { MEDIA_TYPE } from '../format/oci/media-types.ts'
import { digestOf } from '../registry/index.ts'
import { blobDescriptor, bootstrapDescriptor, convertedIndex, EMPTY_LAYER, mergedIndex, nydusConfig, nydusManifest, twinConfig, twinManifest } from './rewrite.ts'

const digest = (c: string) => `sha256:${c.repeat(64)}` as const
const config: ImageConfig = {
  created: '2024-01-01T00:00:00Z', architecture: 'amd64', os: 'linux', config: { Cmd: ['<&>'] }, rootfs: { type: 'layers', diff_ids: [digest('1')] },
  history: [{ created_by: 'first' }, { created_by: 'ENV', empty_layer: true }], docker_version: '20.10',
}
const manifest: Manifest = {
  schemaVersion: 2, mediaType: MEDIA_TYPE.dockerManifest, config: { mediaType: MEDIA_TYPE.dockerConfig, digest: digest('c'), size: 7 },
  layers: [{ mediaType: MEDIA_TYPE.dockerLayerGzip, digest: digest('a'), size: 5 }], annotations: { mine: 'kept' },
}
const descriptor: Descriptor = { mediaType: MEDIA_TYPE.dockerManifest, digest: digest('m'), size: 99, platform: { os: 'linux', architecture: 'amd64' } }
const parsed = (bytes: Uint8Array) => JSON.parse(Buffer.from(bytes).toString())

describe('nydusConfig', () => {
  it('replaces diff_ids, adds one history item and keeps the rest, keys of strangers too', () => {
    expect(parsed(nydusConfig(config, [digest('b'), digest('d')]))).toEqual({
      ...config, rootfs: { type: 'layers', diff_ids: [digest('b'), digest('d')] }, history: [...config.history!, { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }],
    })
  })
})

describe('nydusManifest', () => {
  const parts = {
    source: { descriptor, manifest, reference: 'docker.io/library/a:1' }, config: { digest: digest('e'), size: 8 },
    layers: [blobDescriptor({ digest: digest('b'), size: 3 }), bootstrapDescriptor({ digest: digest('f'), size: 4 }, { oci: false, fsVersion: '6' })],
    fsVersion: '6', builderVersion: 'v1', oci: false, besideOci: false, referrer: false,
  }

  it('keeps types and annotations of the source', () => {
    const { bytes, mediaType } = nydusManifest(parts)
    expect(mediaType).toBe(MEDIA_TYPE.dockerManifest)
    expect(parsed(bytes)).toMatchObject({ config: { mediaType: MEDIA_TYPE.dockerConfig, digest: digest('e'), size: 8 }, annotations: { mine: 'kept', 'containerd.io/snapshot/nydus-source-digest': digest('m') } })
    expect(parsed(bytes).subject).toBeUndefined()
  })

  it('writes OCI types, the config of a merged index and the subject when asked', () => {
    const { bytes, mediaType } = nydusManifest({ ...parts, oci: true, besideOci: true, referrer: true })
    expect(mediaType).toBe(MEDIA_TYPE.ociManifest)
    expect(parsed(bytes)).toMatchObject({ config: { mediaType: MEDIA_TYPE.nydusConfig }, subject: { mediaType: MEDIA_TYPE.dockerManifest, digest: digest('m'), size: 99 } })
    expect(parsed(bytes).subject.platform).toBeUndefined()
  })
})

describe('the twin in a merged index', () => {
  it('has an empty layer in front of everything', () => {
    expect(gunzipSync(EMPTY_LAYER).equals(Buffer.alloc(1024))).toBe(true)
    const bytes = twinConfig({ config })
    expect(parsed(bytes).rootfs.diff_ids).toEqual([digestOf(Buffer.alloc(1024)), digest('1')])
    const twin = parsed(twinManifest({ descriptor, manifest, config }, { digest: digestOf(bytes), size: bytes.length }).bytes)
    expect(twin.layers).toEqual([{ mediaType: MEDIA_TYPE.dockerLayerGzip, digest: digestOf(EMPTY_LAYER), size: 32, annotations: { 'containerd.io/snapshot/nydus-empty-layer': 'true' } }, manifest.layers[0]])
  })

  it('stands before the Nydus image, both with their platform', () => {
    const platform = { os: 'linux', architecture: 'amd64' }
    const index = parsed(mergedIndex([{ platform, oci: { ...descriptor, digest: digest('7') }, sourceDigest: digest('m'), nydus: { mediaType: MEDIA_TYPE.ociManifest, digest: digest('8'), size: 1 } }]).bytes)
    expect(index.manifests.map((one: Descriptor) => [one.digest, one.artifactType, one.platform])).toEqual([[digest('7'), undefined, platform], [digest('8'), MEDIA_TYPE.nydusArtifact, platform]])
  })
})

describe('convertedIndex', () => {
  it('keeps the index\'s type and annotations', () => {
    const source = { mediaType: MEDIA_TYPE.dockerManifestList, index: { schemaVersion: 2 as const, manifests: [], annotations: { a: 'b' } } }
    expect(parsed(convertedIndex(source, [descriptor], { oci: false }).bytes)).toMatchObject({ mediaType: MEDIA_TYPE.dockerManifestList, annotations: { a: 'b' }, manifests: [descriptor] })
    expect(convertedIndex(source, [descriptor], { oci: true }).mediaType).toBe(MEDIA_TYPE.ociIndex)
  })
})

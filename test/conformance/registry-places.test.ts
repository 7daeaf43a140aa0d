// One suite for every place an image can be read from and written to.

import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { copyBlob, openSource, openTarget, readBlob, serveLayout, type ImageSource, type ImageTarget, type OpenOptions } from '../../src/registry/index.ts'
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts'
import { blobOf, contentOf, makeImage, pushImage, temporaryDirectory } from '../support/images.ts'

const signal = AbortSignal.timeout(170_000)
const options: OpenOptions = { signal, plainHttp: true, env: {}, pieceSize: 300_000 }

interface Place { readonly where: (name: string) => string; readonly archive: boolean; readonly dispose: () => PromiseLike<void> }
type Prepare = (directory: string) => Promise<Place>

const layoutLike = (kind: string, archive: boolean): Prepare => async (directory) => ({
  where: (name) => archive ? `${kind}:${path.join(directory, `${name.replace(/\W/g, '-')}.tar`)}:${name}` : `${kind}:${directory}:${name}`, archive, dispose: async () => {},
})

const PLACES: Readonly<Record<string, Prepare>> = {
  'oci:': layoutLike('oci', false),
  'oci-archive:': layoutLike('oci-archive', true),
  'docker-archive:': layoutLike('docker-archive', true),
  'our registry': async (directory) => {
    const server = await serveLayout(directory)
    return { where: (name) => `${server.host}/${name}`, archive: false, dispose: () => server.close() }
  },
  'docker-registry': async (directory) => {
    const registry: DockerRegistry = await startDockerRegistry(directory)
    return { where: (name) => `docker://${registry.host}/${name}`, archive: false, dispose: () => registry[Symbol.asyncDispose]() }
  },
}

async function sha256(source: ImageSource, descriptor: Parameters<ImageSource['openBlob']>[0], range: { offset?: number; length?: number } = {}): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of source.openBlob(descriptor, { ...range, signal })) hash.update(chunk)
  return hash.digest('hex')
}

describe.each(Object.entries(PLACES))('%s', (_, prepare) => {
  let place: Place
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>

  beforeAll(async () => {
    directory = await temporaryDirectory()
    place = await prepare(path.join(directory.path, 'place'))
    if (place.archive) await mkdir(path.join(directory.path, 'place'), { recursive: true })
  })
  afterAll(async () => {
    await place.dispose()
    await directory[Symbol.asyncDispose]()
  })

  const target = (name: string): Promise<ImageTarget> => openTarget(place.where(name), options)
  const source = (name: string): Promise<ImageSource> => openSource(place.where(name), options)

  it('gives back what was pushed, whole and in ranges', async () => {
    const image = makeImage([0, 1, 70_000, 1_000_000])
    {
      await using to = await target('app:1')
      await pushImage(to, image, signal)
    }
    await using from = await source('app:1')
    const { descriptor, bytes } = await from.resolve({ signal })
    expect(descriptor).toMatchObject(image.manifest.descriptor)
    expect(Buffer.from(bytes).equals(image.manifest.bytes)).toBe(true)
    expect(Buffer.from((await from.fetchManifest(descriptor.digest, { signal })).bytes).equals(image.manifest.bytes)).toBe(true)
    expect(Buffer.from(await readBlob(from, image.config.descriptor, { signal })).equals(image.config.bytes)).toBe(true)
    for (const layer of image.layers) {
      const { size } = layer.descriptor
      expect(`sha256:${await sha256(from, layer.descriptor)}`).toBe(layer.descriptor.digest)
      expect(await from.exists(layer.descriptor, { signal })).toBe(true)
      for (const [offset, length] of [[0, Math.min(1, size)], [Math.floor(size / 3), Math.floor(size / 3)], [size, 0]] as const) {
        expect(await sha256(from, layer.descriptor, { offset, length })).toBe(createHash('sha256').update(layer.bytes.subarray(offset, offset + length)).digest('hex'))
      }
    }
  })

  it('takes streams whose length nobody knows, in parallel with others', async () => {
    const blobs = [0, 10, 400_000, 17 * 1024 * 1024].map((size) => blobOf(randomBytes(size), MEDIA_TYPE.nydusBlob))
    const config = blobOf(Buffer.from('{}'), MEDIA_TYPE.ociConfig)
    {
      await using to = await target('streams:1')
      const pushed = await Promise.all(blobs.map(({ bytes }) => to.pushStream(contentOf(bytes)({ offset: 0, length: bytes.length, signal }), { signal })))
      expect(pushed).toEqual(blobs.map(({ descriptor: { digest, size } }) => ({ digest, size })))
      for (const { descriptor } of blobs) expect(await to.hasBlob(descriptor, { signal })).toBe(true)
      await to.pushBlob(config.descriptor, contentOf(config.bytes), { signal })
      const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: config.descriptor, layers: blobs.map(({ descriptor }) => descriptor) }))
      await to.pushManifest(manifest, { mediaType: MEDIA_TYPE.ociManifest, final: true, signal })
      await to.finish({ signal })
    }
    await using from = await source('streams:1')
    for (const { descriptor } of blobs) expect(`sha256:${await sha256(from, descriptor)}`).toBe(descriptor.digest)
  })

  it('shows the old image until the final manifest, then the new one', async () => {
    const [old, fresh] = [makeImage([1000]), makeImage([2000])]
    const current = async () => {
      await using from = await source('moving:1')
      return (await from.resolve({ signal })).descriptor.digest
    }
    {
      await using to = await target('moving:1')
      await pushImage(to, old, signal)
    }
    {
      await using to = await target('moving:1')
      for (const { descriptor, bytes } of [fresh.config, ...fresh.layers]) await to.pushBlob(descriptor, contentOf(bytes), { signal })
      await to.pushManifest(fresh.manifest.bytes, { mediaType: fresh.manifest.descriptor.mediaType, final: false, signal })
      expect(await current()).toBe(old.manifest.descriptor.digest)
      await to.pushManifest(fresh.manifest.bytes, { mediaType: fresh.manifest.descriptor.mediaType, final: true, signal })
      await to.finish({ signal })
    }
    expect(await current()).toBe(fresh.manifest.descriptor.digest)
  })

  it('refuses a blob that is not its digest, and does not have it then', async () => {
    await using to = await target('bad:1')
    const { descriptor, bytes } = blobOf(randomBytes(400_000), 'x/y')
    const other = Buffer.from(bytes)
    other[399_999]! ^= 1
    await expect(to.pushBlob(descriptor, contentOf(other), { signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    expect(await to.hasBlob(descriptor, { signal })).toBe(false)
  })

  it('says what it does not have', async () => {
    await using from = await source('app:1')
    const descriptor = { mediaType: 'x/y', digest: `sha256:${'0'.repeat(64)}`, size: 5 } as const
    expect(await from.exists(descriptor, { signal })).toBe(false)
    await expect(from.fetchManifest(descriptor.digest, { signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    await expect(sha256(from, descriptor)).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    await expect((async () => { await using absent = await source('absent:9'); await absent.resolve({ signal }) })()).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
  })

  it('ends everything with the reason of whoever aborts', async () => {
    const reason = new Error('enough')
    const aborted = AbortSignal.abort(reason)
    await using from = await source('app:1')
    await using to = await target('aborted:1')
    const { descriptor, bytes } = blobOf(randomBytes(10), 'x/y')
    await expect(from.fetchManifest(descriptor.digest, { signal: aborted })).rejects.toBe(reason)
    await expect(from.exists(descriptor, { signal: aborted })).rejects.toBe(reason)
    await expect(to.hasBlob(descriptor, { signal: aborted })).rejects.toBe(reason)
    await expect(to.pushBlob(descriptor, contentOf(bytes), { signal: aborted })).rejects.toBe(reason)
    await expect(to.finish({ signal: aborted })).rejects.toBe(reason)
  })

  it('can be copied into a layout and back', async () => {
    await using copies = await temporaryDirectory()
    const image = makeImage([5000, 600_000])
    {
      await using to = await target('copied:1')
      await pushImage(to, image, signal)
    }
    const copy = async (fromWhere: string, toWhere: string) => {
      await using from = await openSource(fromWhere, options)
      await using to = await openTarget(toWhere, options)
      const { bytes, descriptor } = await from.resolve({ signal })
      for (const blob of [image.config, ...image.layers]) await copyBlob(from, to, { descriptor: blob.descriptor, signal })
      await to.pushManifest(bytes, { mediaType: descriptor.mediaType, final: true, signal })
      await to.finish({ signal })
    }
    await copy(place.where('copied:1'), `oci:${copies.path}/l:x`)
    await copy(`oci:${copies.path}/l:x`, place.where('returned:1'))
    await using back = await source('returned:1')
    expect((await back.resolve({ signal })).descriptor.digest).toBe(image.manifest.descriptor.digest)
    expect((await readdir(copies.path)).length).toBe(1)
  })
})

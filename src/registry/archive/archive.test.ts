import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { contentOf, makeImage, pushImage, temporaryDirectory } from '../../../test/support/images.ts'
import { parseManifest } from '../../format/oci/descriptor.ts'
import { MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { collect, readBlob } from '../content.ts'
import { digestOf, openSource, openTarget } from '../index.ts'

const run = promisify(execFile)
const signal = AbortSignal.timeout(30_000)

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory()
  await use(directory.path)
}

describe.each(['oci-archive', 'docker-archive'])('%s as a target', (kind) => {
  it('appears whole, reads back, and is a tar that tar understands', () => inDirectory(async (directory) => {
    const file = path.join(directory, 'a.tar')
    const image = makeImage([1000, 0, 700_000])
    {
      await using target = await openTarget(`${kind}:${file}:app:1`, { signal })
      await Promise.all(image.layers.map(({ descriptor, bytes }) => target.pushBlob(descriptor, contentOf(bytes), { signal })))
      await expect(readFile(file)).rejects.toMatchObject({ code: 'ENOENT' })
      await pushImage(target, image, signal)
    }
    const names = (await run('tar', ['tf', file])).stdout.trim().split('\n')
    expect(names).toContain('index.json')
    expect(new Set(names).size).toBe(names.length)
    await using source = await openSource(`${kind}:${file}:app:1`, { signal })
    expect((await source.resolve({ signal })).descriptor).toMatchObject(image.manifest.descriptor)
    for (const { descriptor, bytes } of [image.config, ...image.layers]) {
      expect(Buffer.from(await collect(source.openBlob(descriptor, { signal }), 1_000_000)).equals(bytes)).toBe(true)
      expect(await source.exists(descriptor, { signal })).toBe(true)
    }
    expect(await readdir(directory)).toEqual(['a.tar'])
  }))

  it('that is not finished leaves the old archive and nothing else', () => inDirectory(async (directory) => {
    const file = path.join(directory, 'a.tar')
    await writeFile(file, 'old')
    {
      await using target = await openTarget(`${kind}:${file}`, { signal })
      await target.pushStream(contentOf(Buffer.alloc(5000))({ offset: 0, length: 5000, signal }), { signal })
      await expect(target.finish({ signal })).rejects.toMatchObject({ code: 'REGISTRY_STORE' }) // no image yet
    }
    expect(await readFile(file, 'utf8')).toBe('old')
    expect(await readdir(directory)).toEqual(['a.tar'])
  }))

  it('is the same bytes for the same image pushed in the same order', () => inDirectory(async (directory) => {
    const image = makeImage([1000, 2000])
    const hashes: string[] = []
    for (const name of ['a.tar', 'b.tar']) {
      await using target = await openTarget(`${kind}:${path.join(directory, name)}:x:1`, { signal })
      await pushImage(target, image, signal)
      hashes.push(createHash('sha256').update(await readFile(path.join(directory, name))).digest('hex'))
    }
    expect(hashes[0]).toBe(hashes[1])
  }))
})

/** What docker save wrote before version 25: layers by directory, the second a symbolic link to the first. */
async function oldDockerArchive(directory: string, { gzip = false } = {}): Promise<{ file: string; layer: Buffer; config: Buffer }> {
  const root = path.join(directory, 'saved')
  await mkdir(path.join(root, 'one'), { recursive: true })
  await mkdir(path.join(root, 'two'))
  const plain = Buffer.alloc(400_000, 'layer')
  const layer = gzip ? gzipSync(plain) : plain
  await writeFile(path.join(root, 'one/layer.tar'), layer)
  await symlink('../one/layer.tar', path.join(root, 'two/layer.tar'))
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [digestOf(plain), digestOf(plain)] } }))
  await writeFile(path.join(root, 'c.json'), config)
  await writeFile(path.join(root, 'manifest.json'), JSON.stringify([{ Config: 'c.json', RepoTags: ['app:1', 'app:2'], Layers: ['one/layer.tar', 'two/layer.tar'] }]))
  const file = path.join(directory, 'saved.tar')
  await run('tar', ['cf', file, '-C', root, '.'])
  return { file, layer, config }
}

describe('an old docker archive', () => {
  it.each([[false, MEDIA_TYPE.dockerLayer], [true, MEDIA_TYPE.dockerLayerGzip]])('is an ordinary schema 2 image (layers compressed: %s)', (gzip, mediaType) => inDirectory(async (directory) => {
    const { file, layer, config } = await oldDockerArchive(directory, { gzip })
    await using source = await openSource(`docker-archive:${file}:app:2`, { signal })
    const { descriptor, bytes } = await source.resolve({ signal })
    expect(descriptor.mediaType).toBe(MEDIA_TYPE.dockerManifest)
    const manifest = parseManifest(bytes)
    expect(manifest.layers).toEqual([0, 1].map(() => ({ mediaType, digest: digestOf(layer), size: layer.length })))
    expect(Buffer.from(await readBlob(source, manifest.config, { signal })).equals(config)).toBe(true)
    expect(Buffer.from(await collect(source.openBlob(manifest.layers[1]!, { signal }), 1_000_000)).equals(layer)).toBe(true)
    expect((await source.fetchManifest(descriptor.digest, { signal })).bytes.length).toBe(bytes.length)
  }))

  it('needs no name when its names mean one image', () => inDirectory(async (directory) => {
    const { file } = await oldDockerArchive(directory)
    await using source = await openSource(`docker-archive:${file}`, { signal })
    await source.resolve({ signal })
  }))

  it('whose layer was changed is noticed', () => inDirectory(async (directory) => {
    const { file } = await oldDockerArchive(directory)
    const bytes = await readFile(file)
    bytes[bytes.indexOf('layerlayer')]! ^= 1
    await writeFile(file, bytes)
    await using source = await openSource(`docker-archive:${file}:app:1`, { signal })
    const { layers } = parseManifest((await source.resolve({ signal })).bytes)
    await expect(collect(source.openBlob(layers[0]!, { signal }), 1_000_000)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))
})

describe('an archive that cannot be read', () => {
  it.each([
    ['is missing', async () => {}, 'REGISTRY_NOT_FOUND'],
    ['is compressed', async (file: string) => writeFile(file, gzipSync('x')), 'REGISTRY_STORE'],
    ['is no tar', async (file: string) => writeFile(file, Buffer.alloc(2000, 'x')), 'TAR_INVALID'],
    ['is empty', async (file: string) => writeFile(file, ''), 'REGISTRY_STORE'],
    ['is a directory', async (file: string) => { await mkdir(file) }, 'REGISTRY_STORE'],
  ])('because it %s says so', (_, prepare, code) => inDirectory(async (directory) => {
    const file = path.join(directory, 'a.tar')
    await prepare(file)
    for (const kind of ['oci-archive', 'docker-archive']) await expect(openSource(`${kind}:${file}`, { signal })).rejects.toMatchObject({ code })
  }))

  it('at any cut gives a coded error or the whole image', () => inDirectory(async (directory) => {
    const { file } = await oldDockerArchive(directory)
    const { length } = await readFile(file)
    for (let cut = length; cut > 0; cut -= 9973) {
      await truncate(file, cut)
      const attempt = (async () => {
        await using source = await openSource(`docker-archive:${file}:app:1`, { signal })
        const { layers } = parseManifest((await source.resolve({ signal })).bytes)
        for (const layer of layers) await collect(source.openBlob(layer, { signal }), 1_000_000)
      })()
      await attempt.catch((error: unknown) => { expect(error).toHaveProperty('context') })
    }
  }))

  it('whose links go in circles or outside names no member', () => inDirectory(async (directory) => {
    const root = path.join(directory, 'evil')
    await mkdir(root)
    await symlink('b', path.join(root, 'a'))
    await symlink('a', path.join(root, 'b'))
    await symlink('/etc/passwd', path.join(root, 'layer.tar'))
    await writeFile(path.join(root, 'c.json'), JSON.stringify({ rootfs: { diff_ids: [`sha256:${'0'.repeat(64)}`] } }))
    for (const layer of ['a', 'layer.tar', '../../etc/passwd', '/etc/passwd']) {
      await writeFile(path.join(root, 'manifest.json'), JSON.stringify([{ Config: 'c.json', Layers: [layer] }]))
      await run('tar', ['cf', path.join(directory, 'e.tar'), '-C', root, '.'])
      await expect(openSource(`docker-archive:${path.join(directory, 'e.tar')}`, { signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    }
  }))
})

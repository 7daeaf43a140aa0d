// Conversions through real registries: Debian's docker-registry with passwords, caches, dictionaries, mounts between repositories, digests.

import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { check, convert, mount, serveLayout } from '../../src/index.ts'
import { subscribe } from '../../src/core/diagnostics.ts'
import { parseIndex, parseManifest } from '../../src/format/oci/descriptor.ts'
import { MEDIA_TYPE, NYDUS_ANNOTATION } from '../../src/format/oci/media-types.ts'
import { openSource } from '../../src/registry/index.ts'
import { PASSWORD, startDockerRegistry, USERNAME } from '../support/docker-registry.ts'
import { gzipLayer, LayoutMaker } from './make-image.ts'
import { sampleLayout } from './sample.ts'
import { nydusify, temporary } from './support.ts'

const signal = new AbortController().signal
const plain = { plainHttp: true }

describe('docker-registry', () => {
  it('takes the image, with credentials from docker\'s config.json, and serves it lazily', async () => {
    using work = temporary('docker')
    sampleLayout(work.at('source'))
    fs.mkdirSync(work.at('storage'))
    await using registry = await startDockerRegistry(work.at('storage'), { auth: 'basic' })
    fs.mkdirSync(work.at('config'))
    fs.writeFileSync(work.at('config/config.json'), JSON.stringify({ auths: { [registry.host]: { auth: Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64') } } }))
    const env = { DOCKER_CONFIG: work.at('config') }
    const target = `${registry.host}/team/app:nydus`
    const denied = nydusify(['convert', '--source', `oci:${work.at('source')}:sample`, '--target', target, '--plain-http', '--work-dir', work.at('w')], { env: { DOCKER_CONFIG: work.at('none'), HOME: work.at('none') } })
    expect(denied.code).toBe(1)
    expect(denied.stderr).toContain('REGISTRY_DENIED')
    const ran = nydusify(['convert', '--source', `oci:${work.at('source')}:sample`, '--target', target, '--plain-http', '--work-dir', work.at('w')], { env })
    expect(ran.code, ran.stderr).toBe(0)
    expect(ran.stderr).not.toContain(PASSWORD)
    const checked = nydusify(['check', '--source', `oci:${work.at('source')}:sample`, '--target', target, '--target-insecure', '--work-dir', work.at('c')], { env })
    expect(checked.code, checked.stderr).toBe(0)
    const credentials = { kind: 'password', username: USERNAME, password: PASSWORD } as const
    await using mounted = await mount({ image: target, mountpoint: work.at('mnt'), registry: { insecure: true, credentials }, workDirectory: work.at('m') })
    expect(fs.readFileSync(`${mounted.mountpoint}/change`, 'utf8')).toBe('now a file')
    expect(fs.readFileSync(work.at('m/nydusd_config.json'), 'utf8')).not.toContain(Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64'))
  })
})

describe('a credential helper that is not installed', () => {
  it('is told of, and what else knows the registry is used', async () => {
    using work = temporary('helper')
    sampleLayout(work.at('source'))
    fs.mkdirSync(work.at('storage'))
    await using registry = await startDockerRegistry(work.at('storage'), { auth: 'basic' })
    fs.mkdirSync(work.at('config'))
    const auths = { [registry.host]: { auth: Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64') } }
    fs.writeFileSync(work.at('config/config.json'), JSON.stringify({ credHelpers: { [registry.host]: 'absent-here' }, auths }))
    const image = `${registry.host}/a:n`
    for (const argv of [['convert', '--source', `oci:${work.at('source')}:sample`, '--target', image, '--plain-http', '--work-dir', work.at('w')], ['ls', '--insecure', image]]) {
      const { code, stderr } = nydusify(argv, { env: { DOCKER_CONFIG: work.at('config') } })
      expect(code, stderr).toBe(0)
      expect(stderr).toContain(`no credentials for ${registry.host}: docker-credential-absent-here is not installed`)
    }
  })
})

describe('blobs between repositories', () => {
  it('are mounted, not sent, when a converted image is copied within a registry', async () => {
    using work = temporary('cross')
    sampleLayout(work.at('source'))
    fs.mkdirSync(work.at('storage'))
    await using registry = await startDockerRegistry(work.at('storage'))
    const first = await convert({ source: `oci:${work.at('source')}:sample`, target: `${registry.host}/a:n`, targetRegistry: plain, workDirectory: work.at('w') })
    const requests: string[] = []
    const end = subscribe('registry:request:done', ({ method, url, status }) => requests.push(`${method} ${new URL(url).pathname} ${status}`))
    const copied = await convert({ source: `${registry.host}/a:n`, target: `${registry.host}/b:n`, sourceRegistry: plain, targetRegistry: plain, workDirectory: work.at('w') })
    end()
    expect(copied).toMatchObject({ action: 'copied', target: { digest: first.target.digest } })
    expect(requests.filter((one) => one === 'POST /v2/b/blobs/uploads/ 201')).toHaveLength(5)
    expect(requests.filter((one) => /^(PATCH|PUT) .*\/blobs\//.test(one))).toEqual([])
    expect((await check({ source: `oci:${work.at('source')}:sample`, target: `${registry.host}/b:n`, targetRegistry: plain, workDirectory: work.at('c'), through: 'read' })).findings).toEqual([])
  })
})

describe('a reference by digest', () => {
  it('is what is converted, although its tag has moved', async () => {
    using work = temporary('digest')
    const { maker, image } = sampleLayout(work.at('source'))
    await using server = await serveLayout(work.at('source'))
    maker.name(maker.image([gzipLayer([{ path: 'other', data: 'x' }])]), 'moved')
    const source = `${server.host}/${server.repository}@${image.digest}`
    const result = await convert({ source, target: `oci:${work.at('target')}:n`, sourceRegistry: plain, workDirectory: work.at('w') })
    expect(result.sourceDigest).toBe(image.digest)
    const wrong = `${server.host}/${server.repository}@sha256:${'0'.repeat(64)}`
    await expect(convert({ source: wrong, target: `oci:${work.at('target')}:x`, sourceRegistry: plain, workDirectory: work.at('w') })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
  })
})

describe('a build cache', () => {
  it('gives back what it was given: of its version, for these options, at most so many layers', async () => {
    using work = temporary('cache')
    const maker = new LayoutMaker(work.at('source'))
    const layer = (name: string) => gzipLayer([{ path: name, data: name.repeat(1000) }])
    maker.name(maker.image([layer('a'), layer('b')]), 'one')
    maker.name(maker.image([layer('a'), layer('c'), layer('b')]), 'two')
    await using server = await serveLayout(work.at('registry'))
    const run = async (name: string, cache = {}, more = {}) => {
      const result = await convert({
        source: `oci:${work.at('source')}:${name}`, target: `${server.host}/app:${name}`, targetRegistry: plain, workDirectory: work.at('w'),
        buildCache: { reference: `${server.host}/cache:x`, registry: plain, ...cache }, ...more,
      })
      expect((await check({ source: `oci:${work.at('source')}:${name}`, target: `${server.host}/app:${name}`, targetRegistry: plain, workDirectory: work.at('c'), through: 'read' })).findings).toEqual([])
      return result.layers.map(({ origin }) => origin)
    }
    expect(await run('one')).toEqual(['packed', 'packed'])
    expect(await run('two')).toEqual(['cached', 'packed', 'cached'])
    {
      // what upstream's nydusify looks for: no version, and an index whose size it can foretell
      await using written = await openSource(`${server.host}/cache:x`, { ...plain, signal })
      const { bytes } = await written.resolve({ signal })
      expect(Buffer.from(bytes).toString()).toBe(JSON.stringify(JSON.parse(Buffer.from(bytes).toString()), undefined, 2))
      expect(parseManifest((await written.fetchManifest(parseIndex(bytes).manifests[0]!.digest, { signal })).bytes).annotations).toEqual({ [NYDUS_ANNOTATION.cacheVersion]: '' })
    }
    expect(await run('two', { version: 'v2' })).toEqual(['packed', 'packed', 'packed'])
    expect(await run('two', { version: 'v2' }, { compressor: 'none' })).toEqual(['packed', 'packed', 'packed'])
    expect(await run('two', { version: 'v2', maxRecords: 1 })).toEqual(['cached', 'cached', 'cached'])
    expect(await run('two', { version: 'v2' })).toEqual(['cached', 'packed', 'packed'])
    await using source = await openSource(`${server.host}/cache:x`, { ...plain, signal })
    const index = parseIndex((await source.resolve({ signal })).bytes)
    expect(index.manifests[0]!.platform).toEqual({ architecture: 'amd64', os: 'linux' })
    const { annotations, layers } = parseManifest((await source.fetchManifest(index.manifests[0]!.digest, { signal })).bytes)
    expect(annotations).toEqual({ [NYDUS_ANNOTATION.cacheVersion]: 'v2' })
    expect(layers[0]!.annotations?.[NYDUS_ANNOTATION.sourceDigest]).toMatch(/^sha256:/)
  })

  it('that cannot be read does not fail the build', async () => {
    using work = temporary('nocache')
    sampleLayout(work.at('source'))
    const warnings: string[] = []
    const broken = new LayoutMaker(work.at('registry'))
    broken.name(broken.json({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: [{ mediaType: MEDIA_TYPE.ociManifest }] }, MEDIA_TYPE.ociIndex), 'cache:x')
    await using server = await serveLayout(work.at('registry'))
    const result = await convert({
      source: `oci:${work.at('source')}:sample`, target: `${server.host}/app:n`, targetRegistry: plain, workDirectory: work.at('w'),
      buildCache: { reference: `${server.host}/cache:x`, registry: plain }, onProgress: (event) => { if (event.type === 'warning') warnings.push(event.message) },
    })
    expect(result.action).toBe('converted')
    expect(warnings.join()).toMatch(/build cache .* is not used/)
  })
})

describe('a chunk dictionary', () => {
  it('lends its chunks, and its blobs become layers of the target', async () => {
    using work = temporary('dict')
    const maker = new LayoutMaker(work.at('source'))
    const big = Buffer.alloc(3_000_000, 'the same in both images, but no run of one byte ')
    maker.name(maker.image([gzipLayer([{ path: 'shared', data: big }])]), 'dict')
    maker.name(maker.image([gzipLayer([{ path: 'copy', data: big }, { path: 'own', data: 'own' }])]), 'app')
    const common = { workDirectory: work.at('w'), batchSize: 0 }
    const dict = await convert({ ...common, source: `oci:${work.at('source')}:dict`, target: `oci:${work.at('target')}:dict` })
    const app = await convert({ ...common, source: `oci:${work.at('source')}:app`, target: `oci:${work.at('target')}:app`, chunkDict: { reference: `oci:${work.at('target')}:dict` } })
    await using source = await openSource(`oci:${work.at('target')}:app`, { signal })
    const { layers } = parseManifest((await source.resolve({ signal })).bytes)
    expect(layers.map(({ digest }) => digest)).toContain(dict.layers[0]!.blob)
    expect(layers).toHaveLength(3)
    expect(app.layers[0]!.blobSize).toBeLessThan(20_000)
    expect((await check({ source: `oci:${work.at('source')}:app`, target: `oci:${work.at('target')}:app`, workDirectory: work.at('c') })).findings).toEqual([])
  })
})

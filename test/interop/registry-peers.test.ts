// Our client against Debian's docker-registry with users, tokens and TLS; our registry and layouts against skopeo and umoci.

import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile, copyFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { parseManifest } from '../../src/format/oci/descriptor.ts'
import { createRangeFetcher, openSource, openTarget, readBlob, serveLayout, type OpenOptions } from '../../src/registry/index.ts'
import { makePrivateCa, PASSWORD, startDockerRegistry, startTokenService, USERNAME } from '../support/docker-registry.ts'
import { contentOf, makeImage, pushImage, QUICK_RETRY, temporaryDirectory } from '../support/images.ts'

const run = promisify(execFile)
const signal = AbortSignal.timeout(170_000)

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory()
  await use(directory.path)
}

/** A home with docker's config.json for `host`. */
async function homeFor(directory: string, host: string): Promise<NodeJS.ProcessEnv> {
  await mkdir(path.join(directory, 'home/.docker'), { recursive: true })
  const auth = Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64')
  await writeFile(path.join(directory, 'home/.docker/config.json'), JSON.stringify({ auths: { [host]: { auth } } }))
  return { HOME: path.join(directory, 'home') }
}

async function roundTrip(reference: string, options: OpenOptions): Promise<void> {
  const image = makeImage([3000, 700_000])
  await using target = await openTarget(reference, options)
  await pushImage(target, image, signal)
  await using source = await openSource(reference, options)
  expect((await source.resolve({ signal })).descriptor.digest).toBe(image.manifest.descriptor.digest)
  for (const { descriptor, bytes } of image.layers) expect(Buffer.from(await readBlob(source, descriptor, { signal })).equals(bytes)).toBe(true)
}

describe('docker-registry with users', () => {
  it('is pushed to and pulled from with the credentials of config.json, and by nobody else', () => inDirectory(async (directory) => {
    await using registry = await startDockerRegistry(path.join(directory, 'r'), { auth: 'basic' })
    const env = await homeFor(directory, registry.host)
    await roundTrip(`${registry.host}/a/b:1`, { signal, plainHttp: true, env, pieceSize: 200_000 })
    await using stranger = await openSource(`${registry.host}/a/b:1`, { signal, plainHttp: true, env: {} })
    await expect(stranger.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    const wrong = { kind: 'password', username: USERNAME, password: 'wrong-password' } as const
    await using liar = await openSource(`${registry.host}/a/b:1`, { signal, plainHttp: true, env: {}, credentials: wrong })
    const error = await liar.resolve({ signal }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'REGISTRY_DENIED' })
    expect(JSON.stringify([String(error), error])).not.toContain('wrong-password')
  }))
})

describe('docker-registry with a token service', () => {
  it('is pushed to with tokens that expire in the middle, and mounts across repositories', () => inDirectory(async (directory) => {
    await using tokens = await startTokenService(directory, { expiresIn: 2 })
    await using registry = await startDockerRegistry(path.join(directory, 'r'), { auth: tokens })
    const env = await homeFor(directory, registry.host)
    const options: OpenOptions = { signal, plainHttp: true, env, pieceSize: 200_000 }
    const image = makeImage([3000, 700_000])
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    const slowly = async function* (range: Parameters<ReturnType<typeof contentOf>>[0]) {
      await new Promise((resolve) => { setTimeout(resolve, 1200) }) // four pieces outlive two tokens
      yield* contentOf(image.layers[1]!.bytes)(range)
    }
    await target.pushBlob(image.layers[1]!.descriptor, slowly, { signal })
    await pushImage(target, image, signal)
    expect(tokens.issued.length).toBeGreaterThan(1)
    expect(tokens.issued[0]).toMatchObject({ user: USERNAME, scopes: expect.arrayContaining(['repository:a/b:pull,push']) })

    await using other = await openTarget(`${registry.host}/other:1`, options)
    expect(await other.hasBlob(image.layers[1]!.descriptor, { signal })).toBe(false)
    expect(await other.mountBlob(image.layers[1]!.descriptor, target.repository!, { signal })).toBe(true)
    expect(await other.hasBlob(image.layers[1]!.descriptor, { signal })).toBe(true)
    await using anonymous = await openTarget(`${registry.host}/a/b:2`, { ...options, env: {} })
    await expect(anonymous.pushManifest(image.manifest.bytes, { mediaType: image.manifest.descriptor.mediaType, final: true, signal })).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })

    await using fetcher = createRangeFetcher({ host: registry.host, repository: 'a/b' }, { plainHttp: true, env })
    const part = await fetcher.readRange(image.layers[1]!.descriptor.digest, 1000, { length: 5000, signal })
    expect(Buffer.from(part).equals(image.layers[1]!.bytes.subarray(1000, 6000))).toBe(true)
  }))
})

describe('docker-registry with TLS under a private CA', () => {
  it('is trusted with its CA in certs.d or by option, refused without, and taken with --source-insecure', () => inDirectory(async (directory) => {
    const { ca, certificate, key } = await makePrivateCa(path.join(directory, 'ca'))
    await using registry = await startDockerRegistry(path.join(directory, 'r'), { tls: { certificate, key } })
    const reference = `${registry.host}/a:1`
    const certsd = path.join(directory, 'certs.d', registry.host)
    await mkdir(certsd, { recursive: true })
    await copyFile(ca, path.join(certsd, 'ca.crt'))
    await roundTrip(reference, { signal, env: {}, caFiles: [ca] })
    await roundTrip(reference, { signal, env: {}, certificateDirectories: [path.dirname(certsd)] })
    await roundTrip(reference, { signal, env: { SSL_CERT_FILE: ca } })
    await roundTrip(reference, { signal, env: {}, insecure: true })
    await using distrustful = await openSource(reference, { signal, env: {}, retry: { ...QUICK_RETRY, baseMs: 60_000 } })
    // at once: a certificate does not become better by waiting
    await expect(distrustful.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE', message: expect.stringMatching(/UNABLE_TO|SELF_SIGNED/) })
  }))

  it('insecure also means plain HTTP where TLS is not spoken, and nothing else does', () => inDirectory(async (directory) => {
    await using server = await serveLayout(path.join(directory, 'l'))
    await roundTrip(`${server.host}/a:1`, { signal, env: {}, insecure: true })
    await using secure = await openSource(`${server.host}/a:1`, { signal, env: {}, retry: QUICK_RETRY })
    await expect(secure.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' })
    expect(server.log.every((entry) => entry.status < 400 || entry.status === 404)).toBe(true)
  }))
})

describe('skopeo', () => {
  const skopeo = (...args: string[]) => run('skopeo', ['--insecure-policy', ...args])

  it('copies from and to our registry, and finds in our layout what it pushed', () => inDirectory(async (directory) => {
    const layout = path.join(directory, 'layout')
    await using server = await serveLayout(layout)
    const image = makeImage([3000, 700_000])
    await using target = await openTarget(`${server.host}/ours:1`, { signal, plainHttp: true, env: {} })
    await pushImage(target, image, signal)
    await skopeo('copy', '--src-tls-verify=false', `docker://${server.host}/ours:1`, `oci:${directory}/pulled:x`)
    await skopeo('copy', '--dest-tls-verify=false', `oci:${directory}/pulled:x`, `docker://${server.host}/theirs:2`)
    await skopeo('copy', '--src-tls-verify=false', '--dest-tls-verify=false', `docker://${server.host}/theirs:2`, `docker://${server.host}/again:3`)
    const inspected = JSON.parse((await skopeo('inspect', '--tls-verify=false', `docker://${server.host}/again:3`)).stdout)
    expect(inspected.Digest).toBe(image.manifest.descriptor.digest)
    expect(inspected.RepoTags).toEqual(['3'])
    await using source = await openSource(`oci:${layout}:theirs:2`, { signal })
    expect((await source.resolve({ signal })).descriptor.digest).toBe(image.manifest.descriptor.digest)
  }))

  it.each(['oci', 'oci-archive', 'docker-archive'])('reads what we write as %s', (kind) => inDirectory(async (directory) => {
    const image = makeImage([3000, 10_240])
    const where = `${kind}:${path.join(directory, 'place')}:app:1`
    {
      await using target = await openTarget(where, { signal })
      await pushImage(target, image, signal)
    }
    // its layers are no tars, which docker-archive: looks into
    if (kind === 'docker-archive') expect((await run('tar', ['xOf', path.join(directory, 'place'), 'manifest.json'])).stdout).toContain('"RepoTags":["app:1"]')
    else expect(JSON.parse((await skopeo('inspect', '--raw', where)).stdout)).toEqual(JSON.parse(image.manifest.bytes.toString()))
  }))

  it.each(['oci', 'oci-archive', 'docker-archive'])('writes as %s what we read', (kind) => inDirectory(async (directory) => {
    // a layer that really is a tar, since skopeo unpacks and repacks for docker-archive:
    await writeFile(path.join(directory, 'file'), 'content')
    await run('umoci', ['init', '--layout', path.join(directory, 'base')])
    await run('umoci', ['new', '--image', `${directory}/base:x`])
    await run('umoci', ['insert', '--rootless', '--image', `${directory}/base:x`, path.join(directory, 'file'), '/file'])
    const where = `${kind}:${path.join(directory, 'place')}:app:1`
    await skopeo('copy', `oci:${directory}/base:x`, where)
    await using source = await openSource(where, { signal })
    const { layers, config } = parseManifest((await source.resolve({ signal })).bytes)
    expect(layers.length).toBe(1)
    await readBlob(source, config, { signal })
    for (const layer of layers) await readBlob(source, layer, { signal })
  }))

  it('and umoci accept a layout that we wrote', () => inDirectory(async (directory) => {
    const image = makeImage([3000])
    {
      await using target = await openTarget(`oci:${directory}/l:x`, { signal })
      await pushImage(target, image, signal)
    }
    expect((await run('umoci', ['list', '--layout', `${directory}/l`])).stdout.trim()).toBe('x')
    expect((await readdir(`${directory}/l`)).sort()).toEqual(['blobs', 'index.json', 'oci-layout'])
    expect(JSON.parse(await readFile(`${directory}/l/oci-layout`, 'utf8'))).toEqual({ imageLayoutVersion: '1.0.0' })
  }))
})

// A whole conversion at its worst: TLS under a private CA, tokens that the registry refuses after two seconds whatever they announce, and a line
// that breaks in the middle of layers, on the way in and on the way out.

import { createCipheriv, createHash } from 'node:crypto'
import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { check } from '../../src/index.ts'
import { MiB } from '../../src/core/units.ts'
import { parseManifest } from '../../src/format/oci/descriptor.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { copyBlob, openSource, openTarget } from '../../src/registry/index.ts'
import { makePrivateCa, PASSWORD, startDockerRegistry, startTokenService, USERNAME } from '../support/docker-registry.ts'
import { startRoughLine } from '../support/rough-line.ts'
import { LayoutMaker, sha256, tarOf, type TestLayer } from './make-image.ts'
import { startNydusify, temporary } from './support.ts'

const signal = AbortSignal.timeout(170_000)

function noise(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

function plainLayer(name: string, sizes: readonly number[]): TestLayer {
  const tar = tarOf(sizes.map((size, at) => ({ path: `${name}/${at}`, data: noise(`${name}${at}`, size) })))
  return { bytes: tar, diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayer }
}

describe('a conversion over a line that breaks, with tokens that die early, under a private CA', () => {
  it('ends with the right image', async () => {
    using work = temporary('rough')
    const maker = new LayoutMaker(work.at('layout'))
    // the first is sent in pieces of 64 MiB, the others in one request each
    maker.name(maker.image([plainLayer('large', [60 * MiB, 5 * MiB]), plainLayer('middle', [5 * MiB, 5000]), plainLayer('small', Array.from({ length: 40 }, () => 100_000))]), 'x')
    const { ca, certificate, key } = await makePrivateCa(work.at('ca'))
    await using tokens = await startTokenService(work.at('tokens'), { expiresIn: 300, refusedAfter: 2 })
    await using registry = await startDockerRegistry(work.at('registry'), { tls: { certificate, key }, auth: tokens })
    await using line = await startRoughLine(registry.host, { cutAfter: 3 * MiB, cuts: { down: 3, up: 3 }, rate: 60 * MiB })
    const credentials = { kind: 'password', username: USERNAME, password: PASSWORD } as const
    {
      await using source = await openSource(`oci:${work.at('layout')}:x`, { signal })
      await using target = await openTarget(`${registry.host}/app:source`, { signal, credentials, caFiles: [ca] })
      const { bytes, descriptor } = await source.resolve({ signal })
      const manifest = parseManifest(bytes)
      for (const blob of [...manifest.layers, manifest.config]) await copyBlob(source, target, { descriptor: blob, signal })
      await target.pushManifest(bytes, { mediaType: descriptor.mediaType, final: true, signal })
    }
    fs.mkdirSync(work.at('home'))
    const auth = Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64')
    fs.writeFileSync(work.at('home/config.json'), JSON.stringify({ auths: { [line.host]: { auth } } }))
    const before = tokens.issued.length
    await using job = startNydusify(['convert', '--source', `${line.host}/app:source`, '--target', `${line.host}/nydus/app:x`, '--work-dir', work.at('w')],
      { env: { DOCKER_CONFIG: work.at('home'), SSL_CERT_FILE: ca } })
    const { code, stderr } = await job.ended
    expect(code, stderr).toBe(0)
    expect(line.cut).toEqual({ down: 3, up: 3 })
    const asked = tokens.issued.slice(before).map(({ scopes }) => scopes.join(' '))
    expect(asked.filter((scopes) => scopes.includes('app:pull')).length).toBeGreaterThan(2)
    expect(asked.filter((scopes) => scopes.includes('nydus/app:pull,push')).length).toBeGreaterThan(1)
    expect(stderr).not.toContain(PASSWORD)

    const { findings, files } = await check({
      source: `oci:${work.at('layout')}:x`, target: `${registry.host}/nydus/app:x`, targetRegistry: { credentials, caFiles: [ca] }, workDirectory: work.at('c'), through: 'read', signal,
    })
    expect(findings).toEqual([])
    expect(files).toBe(47) // and directories
  })
})

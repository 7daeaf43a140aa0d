// Damaged manifests, indexes, image configurations and nydusd configurations, their digests mended: converting gives a coded error or an image that
// passes its check, and touches nothing but its target.

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isCoded } from '../../src/core/errors.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { check, convert } from '../../src/index.ts'
import { parseConfig } from '../../src/storage/index.ts'
import { gzipLayer, LayoutMaker } from '../image/make-image.ts'
import { FUZZ_TIMEOUT, fuzz, valueOrCoded } from '../support/fuzz-run.ts'
import { below } from '../support/hostile.ts'
import { mutateJson } from '../support/mutate-json.ts'

/** Places whose values are passed on, or have a default. */
const LOOSE = /^\/(created|config\/(Env|Cmd|Labels|ExposedPorts)|history|annotations|layers\/\d\/annotations|id|rafs|cache\/(prefetch|validate)|backend\/registry\/(auth|scheme|timeout|retry_limit|mirrors)|mode|digest_validate|iostats_files|enable_xattr|fs_prefetch|manifests\/0\/annotations\/k)/

let base: string
beforeAll(() => { base = mkdtempSync(path.join(tmpdir(), 'fuzz-documents-')) })
afterAll(() => rmSync(base, { recursive: true, force: true }))

it('documents of images that lie give coded errors or images that pass their check', async () => {
  const maker = new LayoutMaker(path.join(base, 'source'))
  const layers = [gzipLayer([{ path: 'a', data: 'one' }, { path: 'd', type: 'directory' }]), gzipLayer([{ path: '.wh.a' }, { path: 'd/b', data: 'two' }])]
  const blobs = layers.map(({ bytes, mediaType }) => maker.blob(bytes, mediaType))
  const config = {
    created: '2024-01-02T03:04:05Z', architecture: 'amd64', os: 'linux', config: { Env: ['PATH=/bin'], Cmd: ['sh'], Labels: { a: 'b' }, ExposedPorts: { '80/tcp': {} } },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) }, history: [{ created_by: 'one' }, { created_by: 'none', empty_layer: true }, { created_by: 'two' }],
  }
  let converted = 0
  await fuzz('documents', { leastPassed: 0.5 }, async (random, note) => {
    const kind = below(random, 3)
    const damaged = <T>(which: number, value: T): T => {
      if (which !== kind) return value
      const { value: changed, what } = mutateJson(value, random, LOOSE)
      note(`${['config', 'manifest', 'index'][kind]}: ${what}`)
      return changed
    }
    const configBlob = maker.json(damaged(0, config), MEDIA_TYPE.ociConfig)
    const manifest = maker.json(damaged(1, { schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config: configBlob, layers: blobs, annotations: { k: 'v' } }), MEDIA_TYPE.ociManifest)
    const platform = { os: 'linux', architecture: 'amd64' }
    const named = { ...manifest, platform, annotations: { 'org.opencontainers.image.ref.name': 'x', k: 'v', k2: 'w' } }
    writeFileSync(path.join(maker.directory, 'index.json'), JSON.stringify(damaged(2, { schemaVersion: 2, manifests: [named] })))
    const target = `oci:${path.join(base, 'target')}:x`
    const options = { workDirectory: path.join(base, 'work'), platforms: ['linux/amd64'] }
    const outcome = await convert({ source: `oci:${maker.directory}:x`, target, ...options }).then(() => 'converted', (error: unknown) => {
      if (!isCoded(error)) throw error
      return error.code
    })
    if (outcome === 'converted') {
      converted++
      const { findings } = await check({ target, workDirectory: path.join(base, 'work'), platform: 'linux/amd64', through: 'read' })
      expect(findings).toEqual([])
    }
    expect(readdirSync(base).filter((name) => !['source', 'target', 'work'].includes(name))).toEqual([])
    for (const name of ['target', 'work']) rmSync(path.join(base, name), { recursive: true, force: true }) // finished layers wait in `work` for another run
    return !['FORMAT_INVALID', 'REGISTRY_NOT_FOUND'].includes(outcome)
  })
  expect(converted).toBeGreaterThan(0)
}, FUZZ_TIMEOUT)

it('configurations of nydusd that lie are refused by name or mean something', async () => {
  const localfs = { type: 'localfs', localfs: { dir: '/blobs' } }
  const registry = { type: 'registry', registry: { host: 'r.example', repo: 'a/b', auth: 'c2VjcmV0', scheme: 'https', timeout: 5, retry_limit: 3, proxy: { url: '', fallback: true, check_interval: 5 }, mirrors: [{ host: 'http://m', headers: { a: 'b' } }] } }
  const prefetch = { enable: true, threads: 4, batch_size: 1_048_576, bandwidth_limit: 0, prefetch_all: true }
  const configs = [
    { version: 2, id: 'x', backend: localfs, cache: { type: 'blobcache', filecache: { work_dir: '/cache' }, prefetch, validate: true }, rafs: { mode: 'direct', batch_size: 4096, validate: false, enable_xattr: true, prefetch } },
    { version: 2, backend: registry, cache: { type: 'dummycache' }, rafs: { mode: 'cached' } },
    { device: { backend: { type: 'registry', config: registry.registry }, cache: { type: 'blobcache', compressed: false, config: { work_dir: '/cache' } } }, mode: 'direct', digest_validate: false, iostats_files: true, enable_xattr: true, fs_prefetch: { enable: true, threads_count: 4, merging_size: 131_072 } },
  ]
  await fuzz('configurations', { leastPassed: 0.5 }, async (random, note) => {
    const { value, what } = mutateJson(configs[below(random, configs.length)]!, random, LOOSE)
    const text = JSON.stringify(value)
    const broken = below(random, 25) === 0 ? text.slice(0, below(random, text.length)) : text
    note(what)
    const parsed = await valueOrCoded(() => parseConfig(broken))
    if (parsed === undefined) return false
    expect(['localfs', 'registry']).toContain(parsed.backend.type)
    for (const number of [parsed.rafs.batchSize, parsed.rafs.prefetch.threads, parsed.rafs.prefetch.batchSize, parsed.rafs.prefetch.bandwidthLimit]) expect(Number.isSafeInteger(number) && number >= 0).toBe(true)
    return true
  })
}, FUZZ_TIMEOUT)

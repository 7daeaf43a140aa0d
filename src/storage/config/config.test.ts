import { describe, expect, it } from 'vitest'
import { CodedError } from '../../core/errors.ts'
import { localfsConfig, parseConfig } from './config.ts'
import { shownConfig } from './shown.ts'

const localfs = { type: 'localfs', localfs: { dir: '/blobs' } }
const v2 = (over: object = {}) => JSON.stringify({ version: 2, backend: localfs, cache: { type: 'blobcache', filecache: { work_dir: '/cache' } }, rafs: { mode: 'direct' }, ...over })
const v1 = (over: object = {}, device: object = {}) => JSON.stringify({
  device: { backend: { type: 'localfs', config: { dir: '/blobs' } }, cache: { type: 'blobcache', config: { work_dir: '/cache' } }, ...device }, mode: 'direct', ...over })
const registry = { type: 'registry', registry: { host: 'r.example', repo: 'a/b', auth: 'c2VjcmV0' } }
const proxy = { url: 'http://me:hunter2@proxy:65001', ping_url: 'http://proxy/ping?token=hunter2', check_interval: 1, use_http: true, fallback: false }
const bucket = { endpoint: 'store.example', bucket_name: 'b', object_prefix: 'p/', access_key_id: 'hunter2-id', access_key_secret: 'hunter2', timeout: 7, retry_limit: 2, ca_cert_files: ['/ca.pem'] }
const others = [
  { type: 'registry', registry: { ...registry.registry, proxy, hosts_dir: '/etc/certs.d', mirrors: [{ host: 'http://m:5000', headers: { Authorization: 'Bearer hunter2' }, auth_through: true }] } },
  { type: 's3', s3: { ...bucket, region: 'eu' } }, { type: 'oss', oss: bucket }, { type: 'localdisk', localdisk: { device_path: '/dev/x', disable_gpt: true } },
  { type: 'http-proxy', 'http-proxy': { addr: 'https://me:hunter2@h/', path: '/a' } }, { type: 'http-proxy', 'http-proxy': { addr: '/run/x.sock' } }, { type: 'module', module: { path: '/x.js', config: { password: 'hunter2' } } },
]
const messageOf = async (text: string): Promise<string> => parseConfig(text).then(() => 'accepted', (error: unknown) => {
  expect(error).toBeInstanceOf(CodedError)
  expect(error).toMatchObject({ code: 'CONFIG_INVALID' })
  return String(error)
})

describe('parseConfig', () => {
  it('reads version 1 and version 2, as JSON and TOML, into the same', async () => {
    const toml = 'version = 2\n[backend]\ntype = "localfs"\n[backend.localfs]\ndir = "/blobs"\n[cache]\ntype = "filecache"\n[cache.filecache]\nwork_dir = "/cache"\n[rafs]\nmode = "direct"\n'
    const fromV2 = await parseConfig(v2())
    expect(await parseConfig(toml)).toEqual(fromV2)
    const fromV1 = await parseConfig(v1())
    expect({ ...fromV1, cache: fromV2.cache, rafs: fromV2.rafs }).toEqual(fromV2)
    expect(fromV1.cache).toMatchObject({ workDir: '/cache', validate: undefined })
  })

  it('has upstream\'s defaults, also where the versions differ', async () => {
    expect((await parseConfig(v2())).rafs).toEqual({
      mode: 'direct', batchSize: 1 << 20, validate: false, enableXattr: false, iostatsFiles: false, accessPattern: false, latestReadFiles: false,
      prefetch: { enable: false, threads: 8, batchSize: 1 << 20, bandwidthLimit: 0, prefetchAll: false, streamPrefetch: false, backgroundDownload: false },
    })
    expect((await parseConfig(v1({ fs_prefetch: { enable: true } }))).cache.prefetch).toMatchObject({ enable: true, prefetchAll: true, threads: 8 })
    expect((await parseConfig(v2({ backend: registry }))).backend).toMatchObject({ scheme: 'https', timeoutMs: 5000, connectTimeoutMs: 5000, retryLimit: 0 })
  })

  it('ignores keys that it does not know, as Go writes them', async () => {
    await parseConfig(v1({ id: 'x', warmup: 1, id_mapping: [0, 1, 2], prefetch_config: { prefetch_all: true } }, { external_backend: { config_path: '' } }))
  })

  it('takes credentials from the environment before those of the file', async () => {
    expect((await parseConfig(v2({ backend: registry }), { imagePullAuth: 'b3RoZXI=' })).backend).toMatchObject({ auth: 'b3RoZXI=' })
  })

  it('takes redirected blobs to another host or scheme, of which there are two', async () => {
    const redirected = (more: object) => v2({ backend: { type: 'registry', registry: { ...registry.registry, ...more } } })
    expect((await parseConfig(redirected({ blob_url_scheme: 'http', blob_redirected_host: 'cdn.example' }))).backend).toMatchObject({ blobRedirect: { scheme: 'http', host: 'cdn.example' } })
    expect((await parseConfig(redirected({}))).backend).toMatchObject({ blobRedirect: { scheme: undefined, host: undefined } })
    await expect(parseConfig(redirected({ blob_url_scheme: 'ftp' }))).rejects.toThrow(/blob_url_scheme must be https or http/)
  })

  it('keeps `validate: false` only when it was written', async () => {
    expect((await parseConfig(v1({ digest_validate: false }))).cache.validate).toBeUndefined()
    expect((await parseConfig(v2({ cache: { validate: false } }))).cache.validate).toBe(false)
  })

  it.each([
    ['not a table', '[]', /neither JSON nor valid TOML|must be a table/],
    ['broken JSON', '{', /not valid JSON/],
    ['version 3', v2({ version: 3 }), /version must be 2/],
    ['no backend', v2({ backend: undefined }), /backend is missing/],
    ['s3 without a region', v2({ backend: { type: 's3', s3: { bucket_name: 'b' } } }), /backend\.s3\.region is missing/],
    ['oss without an endpoint', v2({ backend: { type: 'oss', oss: { bucket_name: 'b' } } }), /backend\.oss\.endpoint is missing/],
    ['a disk without a device', v2({ backend: { type: 'localdisk', localdisk: {} } }), /backend\.localdisk\.device_path is missing/],
    ['http-proxy with a relative socket', v2({ backend: { type: 'http-proxy', 'http-proxy': { addr: 'run/x.sock' } } }), /backend\.http-proxy\.addr must be/],
    ['a proxy that is no address', v2({ backend: { type: 'registry', registry: { ...registry.registry, proxy: { url: 'proxy:1' } } } }), /backend\.registry\.proxy\.url must be/],
    ['Dragonfly\'s scheduler', v2({ backend: { type: 'registry', registry: { ...registry.registry, proxy: { dragonfly_scheduler_endpoint: 'http://d' } } } }), /dragonfly_scheduler_endpoint is not in this version/],
    ['a mirror without an address', v2({ backend: { type: 'registry', registry: { ...registry.registry, mirrors: [{}] } } }), /backend\.registry\.mirrors\[0\]\.host is missing/],
    ['an unknown backend', v2({ backend: { type: 'ftp' } }), /backend\.type must be/],
    ['localfs without a place', v2({ backend: { type: 'localfs', localfs: {} } }), /dir or blob_file/],
    ['registry without a host', v2({ backend: { type: 'registry', registry: { repo: 'a' } } }), /backend\.registry\.host is missing/],
    ['version 1 without mode', v1({ mode: undefined }), /mode is missing/],
    ['version 1 with http-proxy', v1({}, { backend: { type: 'http-proxy', config: {} } }), /device\.backend\.type "http-proxy" needs/],
    ['a mode that does not exist', v2({ rafs: { mode: 'lazy' } }), /rafs\.mode must be/],
    ['a text where a number belongs', v2({ rafs: { mode: 'direct', batch_size: '1' } }), /rafs\.batch_size must be a whole number/],
    ['no threads', v2({ rafs: { mode: 'direct', prefetch: { enable: true, threads: 0 } } }), /threads must not be 0/],
    ['prefetch without enable', v2({ rafs: { mode: 'direct', prefetch: {} } }), /rafs\.prefetch\.enable is missing/],
    ['a cache without its table', v2({ cache: { type: 'blobcache' } }), /cache\.filecache is missing/],
    ['an encrypted cache without a key', v2({ cache: { type: 'blobcache', filecache: { enable_encryption: true } } }), /encryption_key must be 32 bytes/],
    ['a key whose halves are the same', v2({ cache: { type: 'blobcache', filecache: { enable_encryption: true, encryption_key: 'ab'.repeat(32) } } }), /whose halves differ/],
    ['watermarks the wrong way round', v2({ cache: { type: 'blobcache', filecache: { quota: 1, quota_high_watermark: 50 } } }), /quota_low_watermark must not be above/],
    ['an overlay without a work directory', v2({ overlay: { upper_dir: '/u' } }), /overlay\.work_dir is missing/],
    ['an overlay at no certain place', v2({ overlay: { upper_dir: 'u', work_dir: '/w' } }), /overlay\.upper_dir must be an absolute path/],
  ])('refuses %s and names the key', async (_, text, message) => expect(await messageOf(text)).toMatch(message))

  it('shows itself as version 2 without secrets, and reads that again', async () => {
    for (const config of [localfsConfig('/blobs'), await parseConfig(v2({ backend: { ...registry, registry: { ...registry.registry, registry_token: 'dG9rZW4' } } })), ...await Promise.all(others.map((backend) => parseConfig(v2({ backend }))))]) {
      const shown = JSON.stringify(shownConfig(config))
      expect(shown).not.toMatch(/c2VjcmV0|dG9rZW4|hunter2/)
      expect(shownConfig(await parseConfig(shown))).toEqual(JSON.parse(shown))
    }
  })
})

import { describe, expect, it } from 'vitest'
import { localDirectoryConfig, parseDaemonConfig, shownConfig } from './daemon-config.ts'

const v1 = {
  device: {
    id: '/12', backend: { type: 'registry', config: { host: 'h:5000', repo: 'a/b', auth: 'c2VjcmV0', scheme: 'http', retry_limit: 3, mirrors: [] } },
    cache: { type: 'blobcache', compressed: false, config: { work_dir: '/cache', disable_indexed_map: false } },
  },
  mode: 'direct', digest_validate: false, iostats_files: false, enable_xattr: true, fs_prefetch: { enable: true, threads_count: 4, merging_size: 131072 }, id_mapping: [0, 1, 2],
}
const v2 = {
  version: 2, id: '/12', backend: { type: 'registry', registry: { host: 'h:5000', repo: 'a/b', auth: 'c2VjcmV0', scheme: 'http', retry_limit: 3 } },
  cache: { type: 'blobcache', filecache: { work_dir: '/cache' }, prefetch: { enable: true, threads: 4, batch_size: 131072, prefetch_all: true } },
}

const refusal = (value: unknown): string => {
  try {
    parseDaemonConfig(typeof value === 'string' ? value : JSON.stringify(value))
    return 'accepted'
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'CONFIG_INVALID' ? error.message : `not a CONFIG_INVALID: ${String(error)}`
  }
}

describe('a daemon configuration', () => {
  it('means the same in both generations', () => {
    expect(parseDaemonConfig(JSON.stringify(v1))).toEqual(parseDaemonConfig(JSON.stringify(v2)))
    expect(parseDaemonConfig(JSON.stringify(v1))).toMatchObject({ id: '/12', cache: { workDir: '/cache' }, backend: { host: 'h:5000', timeoutSeconds: 5, skipVerify: false } })
  })

  it('prefetches everything by default in version 1 only', () => {
    const { prefetch_all: _, ...prefetch } = v2.cache.prefetch
    expect(parseDaemonConfig(JSON.stringify({ ...v2, cache: { ...v2.cache, prefetch } })).prefetch.prefetchAll).toBe(false)
    expect(parseDaemonConfig(JSON.stringify(v1)).prefetch.prefetchAll).toBe(true)
  })

  it('takes credentials from outside before those in the file', () => {
    expect(parseDaemonConfig(JSON.stringify(v1), { auth: 'other' }).backend).toMatchObject({ auth: 'other' })
  })

  it.each([
    ['{', /not JSON/],
    ['[]', /the configuration must be an object/],
    [{}, /device must be given/],
    [{ version: 3, backend: {} }, /version 3/],
    [{ version: 2 }, /backend must be given/],
    [{ version: 2, backend: { type: 'localfs' } }, /backend\.localfs\.dir or backend\.localfs\.blob_file must be given/],
    [{ version: 2, backend: { type: 'registry', registry: { repo: 'r' } } }, /backend\.registry\.host must be given/],
    [{ version: 2, backend: { type: 's3', s3: {} } }, /backend 's3' is not in this version/],
    [{ version: 2, backend: { type: 'floppy' } }, /unknown backend 'floppy'/],
    [{ ...v2, cache: { type: 'dummycache' } }, /cache type 'dummycache'/],
    [{ ...v2, cache: { ...v2.cache, prefetch: { enable: 'yes' } } }, /cache\.prefetch\.enable must be true or false/],
    [{ ...v2, cache: { ...v2.cache, prefetch: { threads: 5000 } } }, /cache\.prefetch\.threads must be a whole number from 1 to 1024/],
    [{ ...v2, id: 5 }, /id must be a string/],
  ])('is refused with the key named: %j', (value, message) => {
    expect(refusal(value)).toMatch(message)
  })

  it('is shown without secrets, and can be read back', () => {
    const text = JSON.stringify(shownConfig(parseDaemonConfig(JSON.stringify(v1))))
    expect(text).not.toContain('c2VjcmV0')
    expect(parseDaemonConfig(text)).toMatchObject({ id: '/12', cache: { workDir: '/cache' } })
    expect(parseDaemonConfig(JSON.stringify(shownConfig(localDirectoryConfig('/d'))))).toEqual(localDirectoryConfig('/d'))
  })
})

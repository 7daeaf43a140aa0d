// The backends, over real files and real registries.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { httpClientOf, rangeFetcherOf } from '../../src/cli/nydusd/network.ts'
import type { MakeBackend } from '../../src/library/conformance.ts'
import { serveLayout, createRangeFetcher } from '../../src/registry/index.ts'
import { RangedBackend } from '../../src/storage/backend/ranged.ts'
import { BackendMetrics, createBackend, LocalfsBackend, parseConfig, reliable, type BlobBackend } from '../../src/storage/index.ts'
import { MemoryBackend } from '../support/backends.ts'
import { startDockerRegistry } from '../support/docker-registry.ts'
import { loopDevice, makeGptDisk } from '../support/disk.ts'
import { OSS_KEY, startOss } from '../support/oss-server.ts'
import { S3_KEY, S3_REGION, startS3 } from '../support/s3-server.ts'
import { serveBlobs } from '../support/serve-blobs.ts'
import { backendSuite } from './backend.ts'

async function folder(blobs: ReadonlyMap<string, Uint8Array>): Promise<{ directory: string; dispose: () => Promise<void> }> {
  const directory = await mkdtemp(path.join(tmpdir(), 'backend-'))
  for (const [id, content] of blobs) await writeFile(path.join(directory, id), content)
  return { directory, dispose: () => rm(directory, { recursive: true, force: true }) }
}

backendSuite('localfs, dir', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  return { backend: new LocalfsBackend({ dir: directory }), dispose }
})

backendSuite('localfs, alt_dirs', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  return { backend: new LocalfsBackend({ dir: path.join(directory, 'missing'), altDirs: ['/nonexistent', directory] }), dispose }
})

backendSuite('with retries around it', async (blobs) => {
  const backend = reliable(new MemoryBackend(blobs), { retries: 1, timeoutMs: 5000, sleep: async () => {} }, new BackendMetrics('memory'))
  return { backend, dispose: async () => {} }
})

backendSuite('localfs, blob_file', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  return { backend: new LocalfsBackend({ blobFile: path.join(directory, [...blobs.keys()][0]!) }), dispose }
}, { holdsOneBlob: true })

/** As a configuration makes it. */
const configured = async (config: object): Promise<BlobBackend> => {
  const { backend } = await parseConfig(JSON.stringify({ version: 2, backend: config }))
  return await createBackend(backend, { httpClient: httpClientOf, rangeFetcher: rangeFetcherOf })
}

for (const isShort of [false, true]) {
  backendSuite(`localdisk, GPT with ${isShort ? 'half' : 'whole'} ids`, async (blobs) => {
    const { directory, dispose } = await folder(new Map())
    const disk = path.join(directory, 'disk')
    await makeGptDisk(disk, blobs, { isShort })
    return { backend: await configured({ type: 'localdisk', localdisk: { device_path: disk } }), dispose }
  }, { lengthUnit: 512 })
}

backendSuite('localdisk, a plain device', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  const device = await loopDevice(path.join(directory, [...blobs.keys()][0]!))
  return {
    backend: await configured({ type: 'localdisk', localdisk: { device_path: device.path, disable_gpt: true } }),
    dispose: async () => { await device[Symbol.asyncDispose](); await dispose() },
  }
}, { holdsOneBlob: true, lengthUnit: 512 })

backendSuite('s3', async (blobs) => {
  const { directory, dispose } = await folder(new Map())
  const server = await startS3(directory, { bucket: 'images', objects: new Map([...blobs].map(([id, content]) => [`some%20folder/${id}`, content])) })
  return {
    backend: await configured({ type: 's3', s3: { scheme: 'http', endpoint: server.endpoint, region: S3_REGION, bucket_name: 'images', object_prefix: 'some folder/', access_key_id: S3_KEY.accessKeyId, access_key_secret: S3_KEY.secretAccessKey } }),
    dispose: async () => { await server[Symbol.asyncDispose](); await dispose() },
  }
})

backendSuite('oss', async (blobs) => {
  const server = await startOss({ bucket: 'images', objects: new Map([...blobs].map(([id, content]) => [`a (folder)/${id}`, content])), clockAheadMs: 3_600_000 })
  return {
    backend: await configured({ type: 'oss', oss: { scheme: 'http', endpoint: server.endpoint, bucket_name: 'images', object_prefix: 'a (folder)/', access_key_id: OSS_KEY.accessKeyId, access_key_secret: OSS_KEY.accessKeySecret } }),
    dispose: () => server[Symbol.asyncDispose](),
  }
})

backendSuite('http-proxy, over TCP', async (blobs) => {
  const server = await serveBlobs(blobs, { folder: '/blobs', authorization: `Basic ${Buffer.from('me:p@ss').toString('base64')}` })
  return { backend: await configured({ type: 'http-proxy', 'http-proxy': { addr: `http://me:p%40ss@${server.host}`, path: '/blobs/' } }), dispose: () => server[Symbol.asyncDispose]() }
})

backendSuite('http-proxy, over a Unix socket', async (blobs) => {
  const { directory, dispose } = await folder(new Map())
  const socket = path.join(directory, 'blobs.sock')
  const server = await serveBlobs(blobs, { folder: '', socket })
  return {
    backend: await configured({ type: 'http-proxy', 'http-proxy': { addr: socket } }),
    dispose: async () => { await server[Symbol.asyncDispose](); await dispose() },
  }
})

backendSuite('http-proxy, a server that ignores ranges', async (blobs) => {
  const server = await serveBlobs(blobs, { folder: '', ignoreRanges: true })
  return { backend: await configured({ type: 'http-proxy', 'http-proxy': { addr: `http://${server.host}` } }), dispose: () => server[Symbol.asyncDispose]() }
})

/** A registry that plays in `directory`, with the blobs in its repository `test`. */
const overRegistry = (start: (directory: string, blobs: ReadonlyMap<string, Uint8Array>) => Promise<AsyncDisposable & { readonly host: string }>): MakeBackend => async (blobs) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'backend-'))
  const server = await start(directory, blobs)
  return {
    backend: new RangedBackend(createRangeFetcher({ host: server.host, repository: 'test' }, { plainHttp: true })),
    async dispose() {
      await server[Symbol.asyncDispose]()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

backendSuite('registry, embedded', overRegistry(async (directory, blobs) => {
  const folder = path.join(directory, 'blobs/sha256')
  await mkdir(folder, { recursive: true })
  await writeFile(path.join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await writeFile(path.join(directory, 'index.json'), '{"schemaVersion":2,"manifests":[]}')
  for (const [id, content] of blobs) await writeFile(path.join(folder, id), content)
  return serveLayout(directory)
}))

backendSuite('registry, docker-registry', overRegistry(async (directory, blobs) => {
  const server = await startDockerRegistry(directory)
  for (const [id, content] of blobs) await pushBlob(`http://${server.host}/v2/test`, id, content)
  return server
}))

async function pushBlob(repository: string, id: string, content: Uint8Array): Promise<void> {
  const started = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' })
  const place = new URL(started.headers.get('location')!, repository)
  place.searchParams.set('digest', `sha256:${id}`)
  const done = await fetch(place, { method: 'PUT', body: Buffer.from(content), headers: { 'content-type': 'application/octet-stream' } })
  if (done.status !== 201) throw new Error(`push: ${done.status} ${await done.text()}`)
}

// The backends, over real files and real registries.

import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { serveLayout, createRangeFetcher } from '../../src/registry/index.ts'
import { LocalfsBackend, RangedBackend, reliable, BackendMetrics } from '../../src/storage/index.ts'
import { MemoryBackend } from '../support/backends.ts'
import { startDockerRegistry } from '../support/docker-registry.ts'
import { backendSuite, type MakeBackend } from './backend.ts'

const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')

async function folder(blobs: ReadonlyMap<string, Uint8Array>): Promise<{ directory: string; dispose: () => Promise<void> }> {
  const directory = await mkdtemp(path.join(tmpdir(), 'backend-'))
  for (const [id, content] of blobs) await writeFile(path.join(directory, id), content)
  return { directory, dispose: () => rm(directory, { recursive: true, force: true }) }
}

backendSuite('localfs, dir', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  return { backend: new LocalfsBackend({ dir: directory }), dispose }
}, sha256)

backendSuite('localfs, alt_dirs', async (blobs) => {
  const { directory, dispose } = await folder(blobs)
  return { backend: new LocalfsBackend({ dir: path.join(directory, 'missing'), altDirs: ['/nonexistent', directory] }), dispose }
}, sha256)

backendSuite('with retries around it', async (blobs) => {
  const backend = reliable(new MemoryBackend(blobs), { retries: 1, timeoutMs: 5000, sleep: async () => {} }, new BackendMetrics('memory'))
  return { backend, dispose: async () => {} }
}, sha256)

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
}), sha256)

backendSuite('registry, docker-registry', overRegistry(async (directory, blobs) => {
  const server = await startDockerRegistry(directory)
  for (const [id, content] of blobs) await pushBlob(`http://${server.host}/v2/test`, id, content)
  return server
}), sha256)

async function pushBlob(repository: string, id: string, content: Uint8Array): Promise<void> {
  const started = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' })
  const place = new URL(started.headers.get('location')!, repository)
  place.searchParams.set('digest', `sha256:${id}`)
  const done = await fetch(place, { method: 'PUT', body: Buffer.from(content), headers: { 'content-type': 'application/octet-stream' } })
  if (done.status !== 201) throw new Error(`push: ${done.status} ${await done.text()}`)
}

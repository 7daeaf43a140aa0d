// Makes a Nydus image visible: bootstrap and configuration into the work directory, then a nydusd on top. SPEC: spec-surface.md B.3, C.5.

import { randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { splitDigest } from '../format/oci/digest.ts'
import { registryHost } from '../format/oci/reference.ts'
import { findCredentials, type ImageSource, type Location, type RegistryOptions, TempFile } from '../registry/index.ts'
import type { FoundNydusImage } from './find-image.ts'
import { isBlobLayer } from './nydus-image.ts'
import { type RunningNydusd, startNydusd } from './nydusd-process.ts'

const MAX_SOCKET_NAME = 107

export interface MountOptions {
  readonly source: ImageSource
  readonly location: Location
  readonly registry: RegistryOptions
  readonly image: FoundNydusImage
  readonly bootstrap: Uint8Array
  readonly mountpoint: string
  /** Gets bootstrap, configuration, cache and API socket. */
  readonly workDirectory: string
  /** Fetch everything in the background. */
  readonly prefetch: boolean
  /** Instead of where the image is: a backend of nydusd's configuration. */
  readonly backend?: { readonly type: string; readonly config: unknown } | undefined
  readonly nydusd: readonly [file: string, ...argv: string[]]
  readonly signal: AbortSignal
}

/** Mounts and waits until it is served. SERVE_MOUNT; REGISTRY_* for an archive whose blobs have to be unpacked first. */
export async function mountImage(options: MountOptions): Promise<RunningNydusd> {
  const { workDirectory, bootstrap, mountpoint, nydusd, signal } = options
  const cache = path.join(workDirectory, 'cache')
  await mkdir(cache, { recursive: true })
  const files = { bootstrap: path.join(workDirectory, 'nydus_bootstrap'), config: path.join(workDirectory, 'nydusd_config.json') }
  await writeFile(files.bootstrap, bootstrap)
  const backend = options.backend ?? await backendOf(options)
  await writeFile(files.config, JSON.stringify(configuration(backend, { cache, prefetch: options.prefetch }), undefined, 2), { mode: 0o600 })
  return startNydusd({ command: nydusd, config: files.config, bootstrap: files.bootstrap, mountpoint, apiSocket: socketIn(workDirectory), env: await environment(options), signal })
}

/** A socket's name has 107 bytes at most, wherever the work directory is. SPEC: unix(7). */
function socketIn(directory: string): string {
  const name = path.join(directory, 'api.sock')
  return Buffer.byteLength(name) <= MAX_SOCKET_NAME ? name : path.join(os.tmpdir(), `nydusd-${randomUUID()}.sock`)
}

/** COMPAT: version 1, which every nydusd reads. */
function configuration({ type, config }: { readonly type: string; readonly config: unknown }, { cache, prefetch }: { cache: string; prefetch: boolean }): object {
  return {
    device: { backend: { type, config }, cache: { type: 'blobcache', config: { work_dir: cache } } },
    mode: 'direct', digest_validate: false, iostats_files: false, enable_xattr: true,
    fs_prefetch: { enable: prefetch, threads_count: 10, merging_size: 131_072, bandwidth_rate: 0, prefetch_all: prefetch },
  }
}

async function backendOf({ location, registry, source, image, workDirectory, signal }: MountOptions): Promise<{ type: string; config: object }> {
  switch (location.kind) {
    case 'registry': return {
      type: 'registry',
      config: {
        scheme: registry.plainHttp === true ? 'http' : 'https', host: registryHost(location.reference), repo: location.reference.path,
        skip_verify: registry.insecure === true, ca_cert_files: registry.caFiles ?? [], timeout: 30, connect_timeout: 10, retry_limit: 3,
      },
    }
    case 'oci': return { type: 'localfs', config: { dir: path.resolve(location.path, 'blobs/sha256') } }
    default: {
      const dir = path.join(workDirectory, 'blobs')
      await unpackBlobs(source, image, { dir, signal })
      return { type: 'localfs', config: { dir } }
    }
  }
}

/** Blobs of an archive as files: nothing reads ranges of it but us. */
async function unpackBlobs(source: ImageSource, { manifest }: FoundNydusImage, { dir, signal }: { dir: string; signal: AbortSignal }): Promise<void> {
  await mkdir(dir, { recursive: true })
  for (const layer of new Map(manifest.layers.filter(isBlobLayer).map((one) => [one.digest, one])).values()) {
    await using file = await TempFile.create(dir)
    for await (const piece of source.openBlob(layer, { signal })) await file.append(piece)
    await file.commit(path.join(dir, splitDigest(layer.digest).hex))
  }
}

/** Credentials go by the environment: a configuration file would keep them. */
async function environment({ location, registry, signal }: MountOptions): Promise<NodeJS.ProcessEnv> {
  const env = registry.env ?? process.env
  if (location.kind !== 'registry') return env
  const { domain, path: repository } = location.reference
  const credentials = registry.credentials ?? await findCredentials(domain, repository, { env, signal })
  if (credentials?.kind !== 'password') return env
  return { ...env, IMAGE_PULL_AUTH: Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64') }
}

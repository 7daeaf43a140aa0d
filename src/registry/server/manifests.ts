// Manifests, tags and referrers of the embedded registry, kept in the layout's index.json.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { hasCode } from '../../core/errors.ts'
import { parseIndex, parseManifest, type Descriptor } from '../../format/oci/descriptor.ts'
import { isDigest, type Digest } from '../../format/oci/digest.ts'
import { isIndexType, isManifestType, layerKind, MEDIA_TYPE } from '../../format/oci/media-types.ts'
import { collect, digestOf, MAX_MANIFEST_SIZE } from '../content.ts'
import { readManifest } from '../layout/layout-source.ts'
import { withNamed } from '../layout/layout-target.ts'
import type { LayoutStore } from '../layout/layout-store.ts'
import { namesOf, splitName } from '../layout/names.ts'
import { manifestTypeOf } from '../manifest-type.ts'
import { Refusal, sendBytes, sendJson } from './reply.ts'

export interface ManifestContext {
  readonly store: LayoutStore
  /** The repository in which bare tags of index.json are shown. */
  readonly defaultRepository: string
  readonly signal: AbortSignal
}

type Target = { readonly repository: string; readonly reference: string }

/** GET and HEAD; the bytes sent. */
export async function getManifest(context: ManifestContext, { repository, reference }: Target, response: ServerResponse): Promise<number> {
  const entry = isDigest(reference) ? undefined : await findTag(context, repository, reference)
  if (!isDigest(reference) && entry === undefined) throw new Refusal(404, 'MANIFEST_UNKNOWN', `no tag ${reference}`)
  const digest = isDigest(reference) ? reference : entry!.digest
  const bytes = await bytesOf(context, digest)
  const mediaType = manifestTypeOf(bytes, entry?.mediaType, digest)
  return sendBytes(response, bytes, { status: 200, headers: { 'content-type': mediaType, 'docker-content-digest': digest, etag: `"${digest}"` } })
}

/** PUT: everything the manifest names must be here already. */
export async function putManifest(context: ManifestContext, { repository, reference }: Target, { request, response }: { request: IncomingMessage; response: ServerResponse }): Promise<number> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_MANIFEST_SIZE) throw new Refusal(413, 'SIZE_INVALID', `manifests are at most ${MAX_MANIFEST_SIZE} bytes`)
  const bytes = await collect(request, MAX_MANIFEST_SIZE)
  const mediaType = manifestTypeOf(bytes, request.headers['content-type'], reference)
  const digest = digestOf(bytes)
  if (isDigest(reference) && reference !== digest) throw new Refusal(400, 'DIGEST_INVALID', `the manifest hashes to ${digest}`)
  const { subject } = await checkReferences(context.store, bytes, mediaType)
  const descriptor: Descriptor = { mediaType, ...await context.store.put(bytes) }
  const { signal } = context
  if (!isDigest(reference)) await context.store.update((entries) => withNamed(entries, descriptor, `${repository}:${reference}`), { signal })
  // nobody else would know that an untagged referrer exists
  else if (subject !== undefined) await context.store.update((entries) => entries.some((entry) => entry.digest === digest) ? entries : [...entries, descriptor], { signal })
  response.writeHead(201, {
    location: `/v2/${repository}/manifests/${digest}`, 'docker-content-digest': digest, 'content-length': 0,
    ...(subject === undefined ? {} : { 'oci-subject': subject.digest }),
  }).end()
  return 0
}

/** DELETE: a tag alone, or by digest the manifest with all its tags. */
export async function deleteManifest(context: ManifestContext, { repository, reference }: Target, response: ServerResponse): Promise<number> {
  const { store, signal } = context
  let found = false
  await store.update((entries) => {
    const kept = entries.filter((entry) => isDigest(reference) ? entry.digest !== reference : !isTag(context, entry, repository, reference))
    found = kept.length < entries.length
    return found ? kept : entries
  }, { signal })
  if (isDigest(reference)) found = await store.remove(reference) || found
  if (!found) throw new Refusal(404, 'MANIFEST_UNKNOWN', 'no such manifest')
  response.writeHead(202, { 'content-length': 0 }).end()
  return 0
}

/** tags/list with `n` and `last`. */
export async function listTags(context: ManifestContext, repository: string, { query, response }: { query: URLSearchParams; response: ServerResponse }): Promise<number> {
  const all = new Set<string>()
  for (const entry of await context.store.entries()) for (const [name, tag] of tagsOf(context, entry)) if (name === repository) all.add(tag)
  if (all.size === 0) throw new Refusal(404, 'NAME_UNKNOWN', 'no such repository')
  const { page, headers } = paged([...all].sort(), query, `/v2/${repository}/tags/list`)
  return sendJson(response, { name: repository, tags: page }, { headers })
}

/** Answers GET /v2/_catalog. */
export async function listRepositories(context: ManifestContext, { query, response }: { query: URLSearchParams; response: ServerResponse }): Promise<number> {
  const all = new Set<string>()
  for (const entry of await context.store.entries()) for (const [name] of tagsOf(context, entry)) all.add(name)
  const { page, headers } = paged([...all].sort(), query, '/v2/_catalog')
  return sendJson(response, { repositories: page }, { headers })
}

/** Manifests whose subject is `digest`. SPEC: distribution-spec v1.1 "Listing Referrers". */
export async function listReferrers(context: ManifestContext, digest: Digest, { query, response }: { query: URLSearchParams; response: ServerResponse }): Promise<number> {
  const wanted = query.get('artifactType')
  const manifests = new Map<Digest, Descriptor>()
  for (const entry of await context.store.entries()) {
    const bytes = await bytesOf(context, entry.digest)
    const manifest = isManifestType(entry.mediaType) ? parseManifest(bytes) : isIndexType(entry.mediaType) ? parseIndex(bytes) : undefined
    if (manifest?.subject?.digest !== digest) continue
    const artifactType = manifest.artifactType ?? ('config' in manifest ? manifest.config.mediaType : undefined)
    if (wanted !== null && artifactType !== wanted) continue
    const { annotations } = manifest
    manifests.set(entry.digest, { mediaType: entry.mediaType, digest: entry.digest, size: entry.size, ...(annotations ? { annotations } : {}), ...(artifactType ? { artifactType } : {}) })
  }
  const headers = { 'content-type': MEDIA_TYPE.ociIndex, ...(wanted === null ? {} : { 'oci-filters-applied': 'artifactType' }) }
  return sendJson(response, { schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: [...manifests.values()] }, { headers })
}

async function bytesOf({ store }: ManifestContext, digest: Digest): Promise<Uint8Array> {
  try {
    return await readManifest(store, digest)
  } catch (error) {
    if (hasCode(error, 'REGISTRY_NOT_FOUND')) throw new Refusal(404, 'MANIFEST_UNKNOWN', `no manifest ${digest}`)
    throw error
  }
}

async function findTag(context: ManifestContext, repository: string, tag: string): Promise<Descriptor | undefined> {
  return (await context.store.entries()).findLast((entry) => isTag(context, entry, repository, tag))
}

function isTag(context: ManifestContext, entry: Descriptor, repository: string, tag: string): boolean {
  return tagsOf(context, entry).some(([name, its]) => name === repository && its === tag)
}

function tagsOf({ defaultRepository }: ManifestContext, entry: Descriptor): [repository: string, tag: string][] {
  return namesOf(entry).map(splitName).map(({ repository, tag }) => [repository ?? defaultRepository, tag])
}

/** Refusal MANIFEST_BLOB_UNKNOWN for anything missing; layers that may live elsewhere (foreign ones) may be. */
async function checkReferences(store: LayoutStore, bytes: Uint8Array, mediaType: string): Promise<{ subject: Descriptor | undefined }> {
  if (isIndexType(mediaType)) {
    const { manifests, subject } = parseIndex(bytes)
    for (const item of manifests) await mustExist(store, item)
    return { subject }
  }
  if (!isManifestType(mediaType)) return { subject: undefined }
  const { config, layers, subject } = parseManifest(bytes)
  await mustExist(store, config)
  for (const layer of layers) if (layerKind(layer.mediaType)?.foreign !== true) await mustExist(store, layer)
  return { subject }
}

async function mustExist(store: LayoutStore, { digest, size }: Descriptor): Promise<void> {
  const found = await store.blobSize(digest)
  if (found !== size) throw new Refusal(400, 'MANIFEST_BLOB_UNKNOWN', `${digest} of ${size} bytes is ${found === undefined ? 'not here' : `${found} bytes here`}`)
}

function paged(all: readonly string[], query: URLSearchParams, path: string): { page: readonly string[]; headers: Readonly<Record<string, string>> } {
  const last = query.get('last')
  const rest = last === null ? all : all.filter((item) => item > last)
  const count = /^\d{1,9}$/.test(query.get('n') ?? '') ? Number(query.get('n')) : rest.length
  const page = rest.slice(0, count)
  if (page.length === rest.length || page.length === 0) return { page, headers: {} }
  return { page, headers: { link: `<${path}?n=${count}&last=${encodeURIComponent(page.at(-1)!)}>; rel="next"` } }
}

// Request path → what is asked for. Names, tags and digests are checked against the specification's grammar here, and only what passed
// goes on: a path can therefore name nothing but a blob, a tag or a session.

import { isDigest, type Digest } from '../../format/oci/digest.ts'
import { Refusal } from './reply.ts'

export type Route =
  | { readonly kind: 'base' }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'manifest'; readonly repository: string; readonly reference: string }
  | { readonly kind: 'blob'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'referrers'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'tags'; readonly repository: string }
  | { readonly kind: 'uploads'; readonly repository: string }
  | { readonly kind: 'upload'; readonly repository: string; readonly session: string }

const REPOSITORY = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const SESSION = /^[0-9a-f-]{36}$/
/** LIMIT: distribution/reference's bound on repository names. */
const MAX_REPOSITORY = 255

/** The route of `path` (without query). Throws a Refusal: 404 for unknown paths, 400 for malformed names and digests. */
export function routeOf(path: string): Route {
  if (path === '/v2' || path === '/v2/') return { kind: 'base' }
  if (path === '/v2/_catalog') return { kind: 'catalog' }
  const match = /^\/v2\/(.+?)\/(?:(manifests|blobs|referrers)\/([^/]+)|blobs\/uploads\/([^/]*)|(tags)\/list)$/.exec(path)
  if (match === null) throw new Refusal(404, 'UNSUPPORTED', 'no such address')
  const [, repository = '', kind, last = '', session, tags] = match
  if (repository.length > MAX_REPOSITORY || !REPOSITORY.test(repository)) throw new Refusal(400, 'NAME_INVALID', 'invalid repository name')
  if (tags !== undefined) return { kind: 'tags', repository }
  if (session === '' || (kind === 'blobs' && last === 'uploads')) return { kind: 'uploads', repository }
  if (session !== undefined) {
    if (!SESSION.test(session)) throw new Refusal(404, 'BLOB_UPLOAD_UNKNOWN', 'no such upload')
    return { kind: 'upload', repository, session }
  }
  if (kind === 'manifests') {
    if (!TAG.test(last) && !isDigest(last)) throw new Refusal(400, 'TAG_INVALID', 'neither a tag nor a digest')
    return { kind: 'manifest', repository, reference: last }
  }
  if (!isDigest(last)) throw new Refusal(400, 'DIGEST_INVALID', 'no sha256 or sha512 digest')
  return { kind: kind === 'referrers' ? 'referrers' : 'blob', repository, digest: last }
}

/** `bytes=a-b`, `a-`, `-n` of a body of `size` bytes; undefined when the header is to be ignored. Refusal 416 outside. SPEC: RFC 9110 14.2. */
export function parseRange(header: string | undefined, size: number): { readonly offset: number; readonly length: number } | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '')
  if (match === null || (match[1] === '' && match[2] === '')) return undefined
  const last = match[2] === '' ? size - 1 : Number(match[2])
  const range = match[1] === '' ? { offset: Math.max(0, size - last), end: size } : { offset: Number(match[1]), end: Math.min(size, last + 1) }
  if (match[1] !== '' && match[2] !== '' && last < range.offset) return undefined
  if (range.offset >= size || range.end <= range.offset) throw new Refusal(416, 'SIZE_INVALID', 'range outside the blob', { 'content-range': `bytes */${size}` })
  return { offset: range.offset, length: range.end - range.offset }
}

// Image references: `[domain/]path[:tag][@digest]`, completed as docker does (docker.io, library/).
// SPEC: distribution/reference grammar (v0.6): domain, path components, tag, digest.

import { CodedError, foreignText } from '../../core/errors.ts'
import { type Digest, isDigest } from './digest.ts'

/** A reference in full. At least the domain and the path are there; a tag and a digest may both be (the digest then decides). */
export interface Reference {
  /** Registry host and optional port as written, `docker.io` when left out: `localhost:5000`, `[::1]:5000`. */
  readonly domain: string
  /** Repository: `library/alpine`. */
  readonly path: string
  readonly tag?: string
  readonly digest?: Digest
}

const DEFAULT_DOMAIN = 'docker.io'
/** LIMIT: distribution/reference `RepositoryNameTotalLengthMax`. */
const PATH_LIMIT = 255
/** LIMIT: path, domain, tag and digest together; longer text cannot be a reference and is not worth a regular expression. */
const REFERENCE_LIMIT = 1024

const DOMAIN = /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$/
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/

/**
 * Text as users write it → reference: `alpine` is docker.io/library/alpine, `user/app:1` is docker.io/user/app:1, and a first component
 * with a dot, a colon, an upper-case letter or the name `localhost` is a registry. A missing tag stays missing (see `withDefaultTag`).
 * Throws REGISTRY_BAD_REFERENCE with the rule that was broken.
 */
export function parseReference(text: string): Reference {
  const bad = (why: string) => new CodedError('REGISTRY_BAD_REFERENCE', `image reference "${foreignText(text)}": ${why}`)
  if (text === '') throw bad('it is empty')
  if (text.length > REFERENCE_LIMIT) throw bad(`it is longer than ${REFERENCE_LIMIT} characters`)
  if (/^[0-9a-f]{64}$/.test(text)) throw bad('64 hexadecimal characters are an image id, not a name')

  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isDigest(digest)) throw bad(`"${foreignText(digest, 80)}" is no sha256 or sha512 digest`)
  const named = at < 0 ? text : text.slice(0, at)

  const { domain, remainder } = splitDomain(named)
  // The last colon separates a tag: domains, the only other place for one, are gone.
  const colon = remainder.indexOf(':')
  const tag = colon < 0 ? undefined : remainder.slice(colon + 1)
  const path = colon < 0 ? remainder : remainder.slice(0, colon)

  if (!DOMAIN.test(domain)) throw bad(`"${foreignText(domain, 80)}" is no registry host`)
  if (path.toLowerCase() !== path) throw bad('the repository name must be lower case')
  if (path.length > PATH_LIMIT) throw bad(`the repository name is longer than ${PATH_LIMIT} characters`)
  if (path === '' || path.split('/').some((component) => !PATH_COMPONENT.test(component))) throw bad(`"${foreignText(path, 80)}" is no repository name`)
  if (tag !== undefined && !TAG.test(tag)) throw bad(`"${foreignText(tag, 80)}" is no tag`)
  return { domain, path, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) }
}

/** The full text: `docker.io/library/alpine:3@sha256:…`. `parseReference` of it is the same reference. */
export function formatReference({ domain, path, tag, digest }: Reference): string {
  return `${domain}/${path}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`
}

/** The shortest text that means the same: `alpine:3`. */
export function familiarReference(reference: Reference): string {
  const full = formatReference(reference)
  if (reference.domain !== DEFAULT_DOMAIN) return full
  const short = full.slice(DEFAULT_DOMAIN.length + 1)
  const official = /^library\/([^/]+)$/.exec(short)?.[1]
  return official ?? short
}

/** The reference with tag `latest` when it has neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference
}

/** What the distribution API calls `<reference>`: the digest, else the tag, else `latest`. */
export function manifestName({ tag, digest }: Reference): string {
  return digest ?? tag ?? 'latest'
}

/** The host to talk to: docker.io's registry has another name than its images. */
export function registryHost({ domain }: Reference): string {
  return domain === DEFAULT_DOMAIN ? 'registry-1.docker.io' : domain
}

function splitDomain(named: string): { domain: string; remainder: string } {
  const slash = named.indexOf('/')
  const first = slash < 0 ? '' : named.slice(0, slash)
  const isDomain = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first
  const domain = isDomain ? first : DEFAULT_DOMAIN
  const remainder = isDomain ? named.slice(slash + 1) : named
  if (domain !== DEFAULT_DOMAIN && domain !== 'index.docker.io') return { domain, remainder }
  return { domain: DEFAULT_DOMAIN, remainder: remainder.includes('/') ? remainder : `library/${remainder}` }
}

// Who we are at a registry: docker's config.json with helpers and stores, and the auth.json of podman, buildah and skopeo.
// SPEC: docker/cli docs "docker login" (credsStore, credHelpers); containers-auth.json(5).

import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { askHelper } from './credential-helper.ts'

export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth refresh token, to be traded at the token service. */
  | { readonly kind: 'identity'; readonly token: string }
  /** A bearer token, used as it is. */
  | { readonly kind: 'bearer'; readonly token: string }

export interface LookupOptions {
  readonly env: NodeJS.ProcessEnv
  readonly signal: AbortSignal
}

/**
 * Credentials for `host` (as in references: docker.io, localhost:5000), the most specific for `repository`; undefined when there are none.
 * Order: REGISTRY_AUTH_FILE, the JSON in DOCKER_AUTH_CONFIG, docker's config.json, containers' auth.json. In one file a helper comes
 * before an entry. CONFIG_INVALID when a file is damaged (its content is never quoted), REGISTRY_DENIED when a helper fails.
 */
export async function findCredentials(host: string, repository: string, options: LookupOptions): Promise<Credentials | undefined> {
  for (const { name, text } of await configurations(options.env)) {
    const found = await inConfiguration(parseConfiguration(text, name), host, repository, options)
    if (found !== undefined) return found
  }
  return undefined
}

/** `user:password` in base64, as config files and `registry.auth` hold it. Undefined for anything else. */
export function decodeBasic(base64: string): Credentials | undefined {
  const text = Buffer.from(base64, 'base64').toString('utf8').replace(/\0+$/, '')
  const colon = text.indexOf(':')
  return colon < 1 ? undefined : { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) }
}

interface Source { readonly name: string; readonly text: string }

async function configurations(env: NodeJS.ProcessEnv): Promise<Source[]> {
  const sources: Source[] = []
  const home = env['HOME'] ?? '/'
  const add = async (file: string | undefined): Promise<void> => {
    const text = file === undefined ? undefined : await readIfPresent(file)
    if (text !== undefined) sources.push({ name: file!, text })
  }
  await add(env['REGISTRY_AUTH_FILE'])
  if (env['DOCKER_AUTH_CONFIG'] !== undefined) sources.push({ name: 'DOCKER_AUTH_CONFIG', text: env['DOCKER_AUTH_CONFIG'] })
  await add(path.join(env['DOCKER_CONFIG'] ?? path.join(home, '.docker'), 'config.json'))
  if (env['XDG_RUNTIME_DIR'] !== undefined) await add(path.join(env['XDG_RUNTIME_DIR'], 'containers/auth.json'))
  await add(path.join(env['XDG_CONFIG_HOME'] ?? path.join(home, '.config'), 'containers/auth.json'))
  return sources
}

async function readIfPresent(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    // absent, or not ours to read: the next place may know
    if (error instanceof Error && 'code' in error && ['ENOENT', 'ENOTDIR', 'EACCES'].includes(String(error.code))) return undefined
    throw new CodedError('CONFIG_INVALID', `credentials file ${file} cannot be read`, { file }, { cause: error })
  }
}

interface AuthEntry { readonly auth?: string; readonly username?: string; readonly password?: string; readonly identitytoken?: string; readonly registrytoken?: string }
interface Configuration {
  readonly auths: ReadonlyMap<string, AuthEntry>
  readonly helpers: ReadonlyMap<string, string>
  readonly store: string | undefined
}

function parseConfiguration(text: string, name: string): Configuration {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new CodedError('CONFIG_INVALID', `${name} is not JSON`) // without cause: the parser quotes what it read
  }
  const root = stringMap(value)
  const helpers = new Map<string, string>()
  for (const [key, helper] of Object.entries(stringMap(root['credHelpers']))) if (typeof helper === 'string') helpers.set(normalizeKey(key), helper)
  const auths = new Map<string, AuthEntry>()
  for (const [key, entry] of Object.entries(stringMap(root['auths']))) auths.set(normalizeKey(key), toEntry(entry))
  const store = root['credsStore']
  return { auths, helpers, store: typeof store === 'string' && store !== '' ? store : undefined }
}

async function inConfiguration(config: Configuration, host: string, repository: string, options: LookupOptions): Promise<Credentials | undefined> {
  const hosts = aliasesOf(host)
  const server = hosts[0] === 'docker.io' ? 'https://index.docker.io/v1/' : host
  const helper = hosts.map((alias) => config.helpers.get(alias)).find((name) => name !== undefined) ?? config.store
  if (helper !== undefined) {
    const answered = await askHelper(helper, server, options)
    if (answered !== undefined) return answered
  }
  for (const alias of hosts) {
    for (const key of keysFor(alias, repository)) {
      const entry = config.auths.get(key)
      const found = entry === undefined ? undefined : fromEntry(entry)
      if (found !== undefined) return found
    }
  }
  return undefined
}

/** Docker Hub has had many names; a config may use any. */
function aliasesOf(host: string): string[] {
  const hub = ['docker.io', 'index.docker.io', 'registry-1.docker.io']
  return hub.includes(host) ? hub : [host]
}

/** containers-auth.json(5): `host/ns/repo`, then its parents, then the host. */
function keysFor(host: string, repository: string): string[] {
  const parts = [host, ...repository.split('/')]
  return parts.map((_, index) => parts.slice(0, parts.length - index).join('/'))
}

/** Old docker versions wrote whole URLs: `https://index.docker.io/v1/` is `index.docker.io`. */
function normalizeKey(key: string): string {
  const bare = key.replace(/^https?:\/\//, '').replace(/\/+$/, '')
  return /^https?:\/\//.test(key) || /\/v[12]$/.test(bare) ? bare.split('/')[0]! : bare
}

function fromEntry(entry: AuthEntry): Credentials | undefined {
  if (entry.identitytoken !== undefined) return { kind: 'identity', token: entry.identitytoken }
  if (entry.registrytoken !== undefined) return { kind: 'bearer', token: entry.registrytoken }
  if (entry.username !== undefined && entry.password !== undefined) return { kind: 'password', username: entry.username, password: entry.password }
  return entry.auth === undefined ? undefined : decodeBasic(entry.auth)
}

function toEntry(value: unknown): AuthEntry {
  const raw = stringMap(value)
  const entry: { -readonly [K in keyof AuthEntry]: string } = {}
  for (const key of ['auth', 'username', 'password', 'identitytoken', 'registrytoken'] as const) {
    const field = raw[key]
    if (typeof field === 'string' && field !== '') entry[key] = field
  }
  return entry
}

function stringMap(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {}
  // SAFETY: an object out of JSON.parse; its values stay unknown.
  return value as Readonly<Record<string, unknown>>
}

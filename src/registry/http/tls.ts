// Which certificate authorities and client certificates a registry host gets, found where docker and containers/image look.
// SPEC: docs.docker.com "Verify repository client with certificates"; containers-certs.d(5).

import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import tls from 'node:tls' // whole: a named import of rootCertificates would build them all at start-up
import { CodedError } from '../../core/errors.ts'

/** What undici's connector wants; `ca` replaces Node's roots, so it repeats them. */
export interface TlsOptions {
  readonly ca?: string[]
  readonly cert?: string
  readonly key?: string
  readonly rejectUnauthorized?: boolean
}

export interface TlsChoice {
  /** Extra PEM bundles to trust, for every host. */
  readonly caFiles: readonly string[]
  /** Directories that hold HOST[:PORT]/ca.crt etc. */
  readonly certificateDirectories: readonly string[]
  /** Do not verify certificates. */
  readonly insecure: boolean
}

/** certs.d directories in order of precedence: the user's own first. */
export function defaultCertificateDirectories(env: NodeJS.ProcessEnv): string[] {
  const home = env['HOME']
  const own = home === undefined ? [] : [path.join(home, '.config/containers/certs.d'), path.join(home, '.docker/certs.d')]
  return [...own, '/etc/containers/certs.d', '/etc/docker/certs.d']
}

/**
 * TLS options for `host` (with its port when the reference names one). The first certs.d directory that knows the host wins.
 * CONFIG_INVALID when a file in `caFiles` cannot be read: it was asked for by name.
 */
export async function tlsOptionsFor(host: string, choice: TlsChoice): Promise<TlsOptions> {
  const extra: string[] = []
  for (const file of choice.caFiles) extra.push(await readNamed(file))
  const found = await firstCertificateDirectory(host, choice.certificateDirectories)
  extra.push(...found.authorities)
  return {
    ...(extra.length > 0 ? { ca: [...tls.rootCertificates, ...extra] } : {}),
    ...(found.pair ?? {}),
    ...(choice.insecure ? { rejectUnauthorized: false } : {}),
  }
}

interface HostCertificates { readonly authorities: string[]; readonly pair?: { readonly cert: string; readonly key: string } }

async function firstCertificateDirectory(host: string, roots: readonly string[]): Promise<HostCertificates> {
  // a host comes from a reference, but it becomes a path here: nothing with a separator may pass
  if (!/^[A-Za-z0-9.\-:[\]]+$/.test(host) || host.startsWith('.')) return { authorities: [] }
  for (const root of roots) {
    const directory = path.join(root, host)
    const names = await namesIn(directory)
    if (names.length === 0) continue
    const authorities: string[] = []
    for (const name of names) if (name.endsWith('.crt')) authorities.push(await readNamed(path.join(directory, name)))
    const client = names.find((name) => name.endsWith('.cert') && names.includes(name.replace(/\.cert$/, '.key')))
    if (client === undefined) return { authorities }
    const cert = await readNamed(path.join(directory, client))
    return { authorities, pair: { cert, key: await readNamed(path.join(directory, client.replace(/\.cert$/, '.key'))) } }
  }
  return { authorities: [] }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort()
  } catch {
    return [] // absent, or another user's: docker skips both silently
  }
}

async function readNamed(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new CodedError('CONFIG_INVALID', `certificate file ${file} cannot be read`, { file }, { cause: error })
  }
}

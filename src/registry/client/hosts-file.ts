// containerd's hosts.toml: which servers are asked for a registry's images, in which order, and how.
// SPEC: containerd docs/hosts.md; core/remotes/docker/config/hosts.go for what it leaves open.

import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { CodedError, isSystemError } from '../../core/errors.ts'

export interface RegistryHost {
  readonly url: URL
  /** The path as it is, without /v2. */
  readonly overridePath: boolean
  readonly skipVerify: boolean
  readonly caFiles: readonly string[]
  readonly headers: Readonly<Record<string, string>>
}

/** The hosts to ask, in order; the last one is the registry itself or what `server` names. Undefined without a file for `host`. CONFIG_INVALID. */
export async function readHosts(directory: string, host: string): Promise<readonly RegistryHost[] | undefined> {
  for (const name of [host.replace(/:(\d+)$/, '_$1_'), host, '_default']) {
    const folder = path.join(directory, name)
    const file = path.join(folder, 'hosts.toml')
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined
      throw new CodedError('CONFIG_INVALID', `${file} cannot be read`, { file }, { cause: error })
    })
    if (text !== undefined) return await hostsOf(text, { file, folder, host })
    const certificates = (await readdir(folder).catch(() => [])).filter((entry) => entry.endsWith('.crt')).map((entry) => path.join(folder, entry))
    if (certificates.length > 0) return [{ url: new URL(`https://${host}`), overridePath: false, skipVerify: false, caFiles: certificates, headers: {} }]
  }
  return undefined
}

interface Place { readonly file: string; readonly folder: string; readonly host: string }

async function hostsOf(text: string, place: Place): Promise<readonly RegistryHost[]> {
  const { parse } = await import('smol-toml')
  let root: Table
  try {
    root = parse(text)
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `${place.file} is not TOML`, { file: place.file }, { cause })
  }
  const hosts = Object.entries(tableOf(root['host'])).flatMap(([name, settings]) => {
    const table = tableOf(settings)
    const capabilities = table['capabilities']
    return Array.isArray(capabilities) && !capabilities.includes('pull') ? [] : [hostOf(name, table, place)]
  })
  const server = root['server']
  return [...hosts, hostOf(typeof server === 'string' && server !== '' ? server : `https://${place.host}`, root, place)]
}

type Table = Readonly<Record<string, unknown>>

function hostOf(name: string, table: Table, { file, folder }: Place): RegistryHost {
  // COMPAT: a name without a scheme is https
  const text = name.includes('://') ? name : `https://${name}`
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw new CodedError('CONFIG_INVALID', `${file}: "${name.slice(0, 200)}" is no address of a registry`, { file })
  return {
    url, overridePath: table['override_path'] === true, skipVerify: table['skip_verify'] === true,
    caFiles: textsOf(table['ca']).map((ca) => path.resolve(folder, ca)),
    headers: Object.fromEntries(Object.entries(tableOf(table['header'])).map(([header, value]) => [header.toLowerCase(), textsOf(value).join(', ')])),
  }
}

function tableOf(value: unknown): Table {
  // SAFETY: an object that is no array, out of a TOML parser; its values stay unknown.
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Table : {}
}

function textsOf(value: unknown): readonly string[] {
  return (Array.isArray(value) ? value : [value]).filter((item): item is string => typeof item === 'string')
}

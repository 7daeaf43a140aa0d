// backend.registry: a repository of a registry, and mirrors of it.
// SPEC: spec-surface.md B.3 backend.registry. `mirrors` and `hosts_dir` are ours.

import type { Fields } from './fields.ts'
import { readHttp, readScheme, readText, readUrl, shownHttp, withoutUser, type HttpConfig } from './http-config.ts'

/** A server that is asked before the registry. */
export interface MirrorConfig {
  /** With its scheme. */
  readonly url: string
  /** Sent with every request to it. May hold secrets. */
  readonly headers: Readonly<Record<string, string>>
  /** Whether the registry's credentials are for it too. */
  readonly authThrough: boolean
}

export interface RegistryConfig extends HttpConfig {
  readonly type: 'registry'
  readonly scheme: 'https' | 'http'
  readonly host: string
  readonly repo: string
  /** base64 of `user:password`, or undefined to look in docker's files. */
  readonly auth: string | undefined
  /** Bearer token. */
  readonly registryToken: string | undefined
  /** Where redirects of blobs are taken to, instead of what the registry says. */
  readonly blobRedirect: { readonly scheme: 'https' | 'http' | undefined; readonly host: string | undefined }
  /** In the order in which they are asked. */
  readonly mirrors: readonly MirrorConfig[]
  /** A directory as containerd's certs.d: HOST/hosts.toml names further mirrors. */
  readonly hostsDir: string | undefined
}

/** CONFIG_INVALID. */
export function readRegistry(fields: Fields, imagePullAuth: string | undefined): RegistryConfig {
  return {
    type: 'registry', ...readHttp(fields), scheme: readScheme(fields, 'scheme', 'https'), host: readText(fields, 'host'), repo: readText(fields, 'repo'),
    auth: imagePullAuth ?? (fields.string('auth', '') || undefined),
    registryToken: fields.string('registry_token', '') || undefined,
    blobRedirect: { scheme: readScheme(fields, 'blob_url_scheme', undefined), host: fields.string('blob_redirected_host', '') || undefined },
    mirrors: fields.tables('mirrors').map(readMirror),
    hostsDir: fields.string('hosts_dir', '') || undefined,
  }
}

/** Without secrets. */
export function shownRegistry(config: RegistryConfig): object {
  const { scheme, host, repo, blobRedirect, mirrors, hostsDir } = config
  return {
    scheme, host, repo, ...shownHttp(config), blob_url_scheme: blobRedirect.scheme ?? '', blob_redirected_host: blobRedirect.host ?? '',
    ...(mirrors.length > 0 && { mirrors: mirrors.map(({ url, authThrough }) => ({ host: withoutUser(url), auth_through: authThrough })) }),
    ...(hostsDir !== undefined && { hosts_dir: hostsDir }),
  }
}

function readMirror(fields: Fields): MirrorConfig {
  const headers = fields.table('headers')
  return {
    url: readUrl(fields, 'host'), authThrough: fields.boolean('auth_through', false),
    headers: Object.fromEntries((headers?.keys() ?? []).map((name) => [name.toLowerCase(), headers!.string(name)])),
  }
}

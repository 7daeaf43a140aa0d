// The HTTP clients of backends, from src/registry: storage gets them passed in.

import { CodedError } from '../../core/errors.ts'
import { createRangeFetcher, decodeBasic, defaultCertificateDirectories, mirroredFetcher, readHosts, type Credentials, type Mirror, type RegistryHost, type RegistryOptions, type RetryPolicy, Transport } from '../../registry/index.ts'
import type { HttpClient, HttpConfig, HttpProxyConfig, OssConfig, RangeFetcher, RegistryConfig, S3Config } from '../../storage/index.ts'

/** Requests are repeated by the storage layer, which knows how long a reader waits. */
const ONCE: RetryPolicy = { attempts: 1, baseMs: 100, maxMs: 100 }

/** @throws CONFIG_INVALID */
export async function rangeFetcherOf(config: RegistryConfig): Promise<RangeFetcher> {
  const { scheme, host, repo, blobRedirect } = config
  const credentials = credentialsOf(config)
  const shared: RegistryOptions = { ...timeouts(config), retry: ONCE, blobRedirect, proxy: config.proxy, caFiles: config.caCertFiles }
  const at = ({ url, overridePath, skipVerify, caFiles, headers }: RegistryHost): Mirror => {
    const isOrigin = url.host === host
    return {
      name: url.host,
      fetcher: createRangeFetcher(
        { host: url.host, repository: repo, apiPath: overridePath ? url.pathname.replace(/\/$/, '') : `${url.pathname.replace(/\/$/, '')}/v2`, namespace: isOrigin ? undefined : host },
        { ...shared, plainHttp: url.protocol === 'http:', insecure: skipVerify, caFiles: [...config.caCertFiles, ...caFiles], headers, credentials: isOrigin ? credentials : undefined },
      ),
    }
  }
  const hosts = config.hostsDir === undefined ? undefined : await readHosts(config.hostsDir, host)
  const own = config.mirrors.map(({ url, headers, authThrough }): Mirror => {
    const address = new URL(url)
    const options = { ...shared, plainHttp: address.protocol === 'http:', insecure: config.skipVerify, headers, credentials: authThrough ? credentials : undefined }
    return { name: address.host, fetcher: createRangeFetcher({ host: address.host, repository: repo, apiPath: `${address.pathname.replace(/\/$/, '')}/v2` }, options) }
  })
  const origin = hosts === undefined
    ? createRangeFetcher({ host, repository: repo }, { ...shared, plainHttp: scheme === 'http', insecure: config.skipVerify, credentials })
    : at({ ...hosts.at(-1)!, ...(hosts.at(-1)!.url.host === host && scheme === 'http' && { url: new URL(`http://${host}`) }) }).fetcher
  const mirrors = [...own, ...(hosts?.slice(0, -1).map(at) ?? [])]
  return mirrors.length === 0 ? origin : mirroredFetcher(mirrors, origin)
}

/** The HTTP connections of an object store or proxy, with the proxy and certificates of its configuration. @throws CONFIG_INVALID */
export async function httpClientOf(config: S3Config | OssConfig | HttpProxyConfig): Promise<HttpClient> {
  return new Transport({
    caFiles: config.caCertFiles, certificateDirectories: defaultCertificateDirectories(process.env), insecure: config.skipVerify, env: process.env, proxy: config.proxy, ...timeouts(config),
    socketPath: config.type === 'http-proxy' && config.addr.startsWith('/') ? config.addr : undefined,
  })
}

function credentialsOf({ auth, registryToken }: RegistryConfig): Credentials | undefined {
  if (registryToken !== undefined) return { kind: 'bearer', token: registryToken }
  const basic = auth === undefined ? undefined : decodeBasic(auth)
  if (auth !== undefined && basic === undefined) throw new CodedError('CONFIG_INVALID', 'backend.registry.auth must be base64 of user:password', { key: 'backend.registry.auth' })
  return basic
}

function timeouts({ connectTimeoutMs }: HttpConfig): { readonly connectTimeoutMs?: number } {
  return connectTimeoutMs === 0 ? {} : { connectTimeoutMs }
}

// The HTTP clients of backends, from src/registry: storage gets them passed in.

import { CodedError } from '../../core/errors.ts'
import { createRangeFetcher, decodeBasic, defaultCertificateDirectories, Transport } from '../../registry/index.ts'
import type { HttpClient, HttpConfig, HttpProxyConfig, OssConfig, RangeFetcher, RegistryConfig, S3Config } from '../../storage/index.ts'

/** @throws CONFIG_INVALID */
export async function rangeFetcherOf({ scheme, host, repo, auth, registryToken, blobRedirect, ...config }: RegistryConfig): Promise<RangeFetcher> {
  const basic = auth === undefined ? undefined : decodeBasic(auth)
  if (auth !== undefined && basic === undefined) throw new CodedError('CONFIG_INVALID', 'backend.registry.auth must be base64 of user:password', { key: 'backend.registry.auth' })
  return createRangeFetcher({ host, repository: repo }, {
    plainHttp: scheme === 'http', insecure: config.skipVerify, caFiles: config.caCertFiles, blobRedirect, ...timeouts(config), env: environment(config),
    credentials: registryToken === undefined ? basic : { kind: 'bearer', token: registryToken },
  })
}

export async function httpClientOf(config: S3Config | OssConfig | HttpProxyConfig): Promise<HttpClient> {
  return new Transport({
    caFiles: config.caCertFiles, certificateDirectories: defaultCertificateDirectories(process.env), insecure: config.skipVerify, env: environment(config), ...timeouts(config),
    socketPath: config.type === 'http-proxy' && config.addr.startsWith('/') ? config.addr : undefined,
  })
}

function timeouts({ connectTimeoutMs }: HttpConfig): { readonly connectTimeoutMs?: number } {
  return connectTimeoutMs === 0 ? {} : { connectTimeoutMs }
}

function environment({ proxy }: HttpConfig): NodeJS.ProcessEnv {
  return proxy === undefined ? process.env : { ...process.env, HTTPS_PROXY: proxy.url, HTTP_PROXY: proxy.url }
}

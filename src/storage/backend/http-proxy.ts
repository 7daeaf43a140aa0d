// Blobs at ADDR/PATH/BLOB of any HTTP server that knows ranges, over TCP or a Unix socket.
// COMPAT: upstream asks a Unix socket for "/" whatever the blob; here the path names it there too, which a server of one blob may ignore.

import type { HttpProxyConfig } from '../config/backend-config.ts'
import type { HttpServer } from './http-backend.ts'
import { encodedPath } from './object-path.ts'

/** For `HttpBackend`; with a Unix socket the client is to be connected to it. */
export function httpProxyServer({ addr, path }: Pick<HttpProxyConfig, 'addr' | 'path'>): HttpServer {
  const base = new URL(addr.startsWith('/') ? 'http://localhost' : addr)
  const { username, password } = base
  base.username = base.password = ''
  const folder = `${base.pathname}/${path}`.split('/').filter((part) => part !== '').map((part) => `/${part}`).join('')
  const credentials = `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`
  return {
    type: 'http-proxy',
    urlOf: (blobId) => new URL(`${base.origin}${folder}/${encodedPath(blobId)}`),
    ...(username !== '' && { sign: () => ({ authorization: credentials }) }),
  }
}

// Blobs as objects of an Alibaba OSS bucket.
// SPEC: OSS API reference, "Add signatures to the Authorization header" (version 1: HMAC-SHA1).

import { createHmac } from 'node:crypto'
import { isIP } from 'node:net'
import type { OssConfig } from '../config/backend-config.ts'
import type { HttpServer } from './http-backend.ts'
import { encodedPath } from './object-path.ts'

type OssAddress = Pick<OssConfig, 'scheme' | 'endpoint' | 'bucketName' | 'objectPrefix' | 'accessKeyId' | 'accessKeySecret'>

/** For `HttpBackend`. The bucket is part of the host's name; where the endpoint is an IP address, of the path. */
export function ossServer({ scheme, endpoint, bucketName, objectPrefix, accessKeyId, accessKeySecret }: OssAddress): HttpServer {
  const address = new URL(`${scheme}://${endpoint}`)
  const isNumeric = isIP(address.hostname.replace(/^\[|\]$/g, '')) !== 0
  const base = isNumeric ? `${scheme}://${address.host}/${bucketName}` : `${scheme}://${bucketName}.${address.host}`
  const sign: NonNullable<HttpServer['sign']> = ({ method, url, at }) => {
    const key = decodeURIComponent(url.pathname.slice(isNumeric ? bucketName.length + 2 : 1))
    const date = at.toUTCString()
    // method, content's MD5, content's type, date, resource: what is read has no content
    const text = [method, '', '', date, `/${bucketName}/${key}`].join('\n')
    return { date, authorization: `OSS ${accessKeyId}:${createHmac('sha1', accessKeySecret).update(text).digest('base64')}` }
  }
  return {
    type: 'oss',
    urlOf: (blobId) => new URL(`${base}/${encodedPath(`${objectPrefix}${blobId}`)}`),
    ...(accessKeyId !== '' && { sign }),
  }
}

// Blobs as objects of an S3 bucket, requests signed with version 4.
// SPEC: AWS Signature Version 4, "Create a signed AWS API request"; path-style addresses, as upstream's.

import { createHash, createHmac } from 'node:crypto'
import type { S3Config } from '../config/backend-config.ts'
import type { HttpServer } from './http-backend.ts'
import { encodedPath } from './object-path.ts'

const EMPTY_SHA256 = createHash('sha256').digest('hex')

type S3Address = Pick<S3Config, 'scheme' | 'endpoint' | 'region' | 'bucketName' | 'objectPrefix' | 'accessKeyId' | 'accessKeySecret'>

/** For `HttpBackend`. */
export function s3Server({ scheme, endpoint, region, bucketName, objectPrefix, accessKeyId, accessKeySecret }: S3Address): HttpServer {
  const sign: NonNullable<HttpServer['sign']> = ({ method, url, at }) => {
    const time = at.toISOString().replace(/[-:]|\.\d+/g, '')
    const day = time.slice(0, 8)
    const scope = `${day}/${region}/s3/aws4_request`
    const own = { 'x-amz-content-sha256': EMPTY_SHA256, 'x-amz-date': time }
    const signed = Object.entries({ ...own, host: url.host }) // Range is not: proxies may change it
      .sort(([a], [b]) => (a < b ? -1 : 1))
    const names = signed.map(([name]) => name).join(';')
    const request = [method, url.pathname, '', ...signed.map(([name, value]) => `${name}:${value.trim()}`), '', names, EMPTY_SHA256].join('\n')
    const text = ['AWS4-HMAC-SHA256', time, scope, createHash('sha256').update(request).digest('hex')].join('\n')
    const key = [day, region, 's3', 'aws4_request'].reduce((secret: string | Buffer, part) => createHmac('sha256', secret).update(part).digest(), `AWS4${accessKeySecret}`)
    const signature = createHmac('sha256', key).update(text).digest('hex')
    return { ...own, authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}` }
  }
  return {
    type: 's3',
    urlOf: (blobId) => new URL(`${scheme}://${endpoint}/${encodedPath(`${bucketName}/${objectPrefix}${blobId}`)}`),
    ...(accessKeyId !== '' && { sign }),
  }
}

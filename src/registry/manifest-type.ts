// The media type of manifest bytes. Registries send wrong Content-Types, and two claims that differ are an attack (CVE-2021-41190):
// one reader sees an index where another sees a manifest.

import { CodedError, foreignText } from '../core/errors.ts'
import { isIndexType, isManifestType, isSchema1Type, MEDIA_TYPE } from '../format/oci/media-types.ts'

/**
 * The type that `bytes` claim in `mediaType`, else the one in `contentType` (an HTTP header or a descriptor's), else the one that their
 * fields show. REGISTRY_PROTOCOL when the bytes are not a JSON object, have the fields of both kinds, or contradict a claim.
 */
export function manifestTypeOf(bytes: Uint8Array, contentType: string | undefined, what: string): string {
  const fields = fieldsOf(bytes, what)
  const shape = shapeOf(fields, what)
  const inside = typeof fields['mediaType'] === 'string' ? fields['mediaType'] : undefined
  const outside = contentType?.replace(/;.*/s, '').trim().toLowerCase()
  for (const claim of [inside, outside]) {
    if (claim === undefined) continue
    if ((isIndexType(claim) && shape === 'manifest') || (isManifestType(claim) && shape === 'index')) {
      throw new CodedError('REGISTRY_PROTOCOL', `${what} is served as ${foreignText(claim, 80)} but has the fields of the other kind`)
    }
  }
  if (inside !== undefined && outside !== undefined && isImageType(inside) && isImageType(outside) && inside !== outside) {
    throw new CodedError('REGISTRY_PROTOCOL', `${what} calls itself ${inside} and is served as ${outside}`)
  }
  if (inside !== undefined) return inside
  if (outside !== undefined && isImageType(outside)) return outside
  return shape === 'index' ? MEDIA_TYPE.ociIndex : shape === 'schema1' ? MEDIA_TYPE.dockerSchema1Signed : MEDIA_TYPE.ociManifest
}

function isImageType(mediaType: string): boolean {
  return isIndexType(mediaType) || isManifestType(mediaType) || isSchema1Type(mediaType)
}

function shapeOf(fields: Readonly<Record<string, unknown>>, what: string): 'index' | 'manifest' | 'schema1' | 'other' {
  const manifest = 'config' in fields || 'layers' in fields
  if ('manifests' in fields && manifest) throw new CodedError('REGISTRY_PROTOCOL', `${what} has the fields of an index and of a manifest`)
  if (fields['schemaVersion'] === 1) return 'schema1'
  return 'manifests' in fields ? 'index' : manifest ? 'manifest' : 'other'
}

function fieldsOf(bytes: Uint8Array, what: string): Readonly<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'))
  } catch (error) {
    throw new CodedError('REGISTRY_PROTOCOL', `${what} is not JSON`, {}, { cause: error })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new CodedError('REGISTRY_PROTOCOL', `${what} is not a JSON object`)
  // SAFETY: a non-null, non-array object out of JSON.parse has string keys and unknown values.
  return value as Readonly<Record<string, unknown>>
}

// PUT /api/v1/config: other credentials or another proxy for an image that is served. SPEC: spec-surface.md B.5; upstream takes texts only and
// answers 500 for keys that it does not know.

import { CodedError } from '../core/errors.ts'
import type { BackendChange } from '../storage/index.ts'

const KEYS: Readonly<Record<string, keyof BackendChange | undefined>> = { registry_auth: 'registryAuth', proxy_url: 'proxyUrl' }

/** The change that a body asks for. CONFIG_INVALID, SERVE_BAD_REQUEST; a value is never quoted: it may be a password. */
export function backendChangeOf(body: unknown): BackendChange {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new CodedError('CONFIG_INVALID', 'want an object of texts')
  const change: { -readonly [K in keyof BackendChange]: BackendChange[K] } = {}
  for (const [key, value] of Object.entries(body)) {
    const name = KEYS[key]
    if (name === undefined) throw new CodedError('SERVE_BAD_REQUEST', `unknown configuration key: ${key.slice(0, 80)}`) // COMPAT: 500
    if (typeof value !== 'string') throw new CodedError('CONFIG_INVALID', `${key} must be a text`, { key })
    change[name] = value
  }
  return change
}

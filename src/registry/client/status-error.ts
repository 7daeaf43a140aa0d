// A refused request as one of this project's errors. SPEC: distribution-spec v1.1 "Error Codes": {"errors":[{code,message,detail}]}.

import { CodedError, foreignText, type ErrorCode } from '../../core/errors.ts'
import { retryAfterMs } from '../../core/retry-after.ts'
import { KiB } from '../../core/units.ts'
import { redactUrl } from '../http/redact.ts'
import type { HttpResponse, Method } from '../http/transport.ts'

/** LIMIT: enough for any list of errors; the text is cut to a line anyway. */
const MAX_ERROR_BODY = 64 * KiB

/**
 * The error for `response`: REGISTRY_NOT_FOUND (404), REGISTRY_DENIED (401, 403), REGISTRY_UNREACHABLE (429, 5xx), else REGISTRY_PROTOCOL.
 * `context.status` has the status, `context.retryAfterMs` what Retry-After asks for. `clean` removes secrets from what the registry says.
 */
export async function statusError(response: HttpResponse, method: Method, clean: (text: string) => string): Promise<CodedError> {
  const { status } = response
  const wait = retryAfterMs(response.header('retry-after'), response.header('date'))
  const said = foreignText(clean(await explanation(response)))
  return new CodedError(codeFor(status), `${method} ${redactUrl(response.url)}: status ${status}${said === '' ? '' : `: ${said}`}`, { status, ...(wait !== undefined && { retryAfterMs: wait }) })
}

function codeFor(status: number): ErrorCode {
  if (status === 404) return 'REGISTRY_NOT_FOUND'
  if (status === 401 || status === 403) return 'REGISTRY_DENIED'
  if (status === 408 || status === 429 || status >= 500) return 'REGISTRY_UNREACHABLE'
  return 'REGISTRY_PROTOCOL'
}

async function explanation(response: HttpResponse): Promise<string> {
  let body: string
  try {
    body = Buffer.from(await response.bytes(MAX_ERROR_BODY)).toString('utf8')
  } catch {
    return '' // too long or cut off: the status alone decides
  }
  try {
    const parsed: unknown = JSON.parse(body)
    if (typeof parsed === 'object' && parsed !== null && 'errors' in parsed && Array.isArray(parsed.errors)) {
      return parsed.errors.slice(0, 3).map(describe).filter((text) => text !== '').join('; ')
    }
  } catch {
    // an HTML page of some proxy, shown as it is
  }
  return body.trim()
}

function describe(item: unknown): string {
  if (typeof item !== 'object' || item === null) return ''
  const code = 'code' in item && typeof item.code === 'string' ? item.code : ''
  const message = 'message' in item && typeof item.message === 'string' ? item.message : ''
  return [code, message].filter((text) => text !== '').join(' ')
}

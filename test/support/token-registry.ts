// A registry that wants bearer tokens, and the service that gives them.

import type { IncomingMessage } from 'node:http'
import { startFaultRegistry, type Exchange, type FaultRegistry } from './fault-registry.ts'

export interface TokenRequest { readonly method: string; readonly query: URLSearchParams; readonly form: URLSearchParams; readonly authorization: string | undefined }

export interface TokenPolicy {
  /** Decides; a status refuses, otherwise these fields are the answer besides the token. */
  issue(request: TokenRequest): number | Readonly<Record<string, string | number>>
  /** A token is good for so many requests; default any number. */
  readonly requestsPerToken?: number
  /** The realm in the challenge; default this server's. */
  readonly realm?: string
}

export interface TokenRegistry extends AsyncDisposable { readonly registry: FaultRegistry; readonly asked: readonly TokenRequest[] }

export async function startTokenRegistry(directory: string, policy: TokenPolicy): Promise<TokenRegistry> {
  const asked: TokenRequest[] = []
  const left = new Map<string, number>()
  const registry: FaultRegistry = await startFaultRegistry(directory, (exchange) => {
    const { request, response } = exchange
    if (request.url?.startsWith('/token')) {
      void token(exchange, { policy, asked, left })
      return true
    }
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const remaining = left.get(bearer) ?? 0
    if (remaining > 0) {
      left.set(bearer, remaining - 1)
      return false
    }
    const realm = policy.realm ?? `${registry.url}/token`
    request.resume().on('end', () => {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="reg",scope="repository:a/b:pull"` })
        .end(`{"errors":[{"code":"UNAUTHORIZED","message":"you sent ${request.headers.authorization}"}]}`)
    })
    return true
  })
  return { registry, asked, [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose]() }
}

async function token({ request, response }: Exchange, { policy, asked, left }: { policy: TokenPolicy; asked: TokenRequest[]; left: Map<string, number> }): Promise<void> {
  const query = new URL(request.url ?? '', 'http://x').searchParams
  const item: TokenRequest = { method: request.method ?? '', query, form: new URLSearchParams(await bodyOf(request)), authorization: request.headers.authorization }
  asked.push(item)
  const issued = policy.issue(item)
  if (typeof issued === 'number') {
    response.writeHead(issued).end(`refused ${request.headers.authorization}`)
    return
  }
  const value = `token-${asked.length}`
  left.set(value, policy.requestsPerToken ?? Number.MAX_SAFE_INTEGER)
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token: value, ...issued }))
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request) text += chunk
  return text
}

// WWW-Authenticate: which scheme a registry wants, and for Bearer where tokens come from.
// SPEC: RFC 9110 11.6.1; distribution docs/spec/auth/token.md.

export type Challenge =
  | { readonly scheme: 'basic' }
  | { readonly scheme: 'bearer'; readonly realm: string; readonly service: string | undefined; readonly scopes: readonly string[] }

/** LIMIT: real challenges are a few hundred characters; a longer header is noise. */
const MAX_CHALLENGE = 8192

/** The challenge to answer: Bearer before Basic (a token is worth less to a thief); undefined when neither is offered. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  if (header === undefined || header.length > MAX_CHALLENGE) return undefined
  let basic: Challenge | undefined
  for (const { scheme, parameters } of challengesIn(header)) {
    if (scheme === 'basic') basic = { scheme: 'basic' }
    const realm = parameters.get('realm')
    if (scheme !== 'bearer' || realm === undefined) continue
    const scope = parameters.get('scope') ?? ''
    return { scheme: 'bearer', realm, service: parameters.get('service'), scopes: scope.split(' ').filter((item) => item !== '') }
  }
  return basic
}

interface RawChallenge { readonly scheme: string; readonly parameters: Map<string, string> }

/** One header may hold several challenges; a token that no "=" follows starts the next. */
function challengesIn(header: string): RawChallenge[] {
  const found: RawChallenge[] = []
  const item = /\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y
  for (let match = item.exec(header); match !== null; match = item.exec(header)) {
    const [, name, quoted, plain] = match
    if (quoted === undefined && plain === undefined) {
      found.push({ scheme: name!.toLowerCase(), parameters: new Map() })
      continue
    }
    found.at(-1)?.parameters.set(name!.toLowerCase(), quoted?.replace(/\\(.)/g, '$1') ?? plain!)
  }
  return found
}

// What of a URL or a foreign text may be shown. Upload locations, CDN redirects and token requests carry secrets in their query and
// sometimes in their user part, so only a few harmless parameters survive.

/** Query parameters whose values are facts about the image, not secrets. */
const SHOWN_PARAMETERS: ReadonlySet<string> = new Set(['digest', 'mount', 'from', 'n', 'last', 'scope', 'service', 'artifactType'])

/** `url` without user part, fragment and secret query values: fit for messages, events and logs. */
export function redactUrl(url: URL): string {
  const parameters: string[] = []
  for (const [name, value] of url.searchParams) parameters.push(SHOWN_PARAMETERS.has(name) ? `${name}=${value}` : `${name}=…`)
  const query = parameters.length === 0 ? '' : `?${parameters.join('&')}`
  return `${url.protocol}//${url.host}${url.pathname}${query}`
}

/** `text` with every one of `secrets` (of at least four characters: shorter ones would blank out ordinary words) replaced. */
export function scrub(text: string, secrets: Iterable<string>): string {
  let clean = text
  for (const secret of secrets) if (secret.length >= 4) clean = clean.replaceAll(secret, '***')
  return clean
}

// Names of objects as paths of URLs.

/** `key` with everything but unreserved characters and slashes escaped, as signatures want it. SPEC: RFC 3986 2.3. */
export function encodedPath(key: string): string {
  return key.split('/').map((part) => encodeURIComponent(part).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)).join('/')
}

// When a server wants to be asked again.

/**
 * Milliseconds that a Retry-After header (seconds or a date) asks for; undefined without a usable one. A date is the server's, and so is the time it is
 * compared with: its Date header, where there is one, so that a clock that is wrong here asks for no day of silence. SPEC: RFC 9110 10.2.3.
 */
export function retryAfterMs(header: string | undefined, serverDate: string | undefined, now: number = Date.now()): number | undefined {
  if (header === undefined) return undefined
  if (/^\d{1,9}$/.test(header.trim())) return Number(header.trim()) * 1000
  const date = dateOf(header)
  return date === undefined ? undefined : Math.max(0, date - (dateOf(serverDate) ?? now))
}

function dateOf(header: string | undefined): number | undefined {
  const date = /^[A-Z][a-z]{2}/.test(header ?? '') ? Date.parse(header ?? '') : Number.NaN // all three HTTP dates begin with a day's name; Date.parse takes far more
  return Number.isNaN(date) ? undefined : date
}

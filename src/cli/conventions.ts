// What all programs share without loading commander: log levels, exit codes, how an error is printed.

/** From the most talkative to the least. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Exit codes. SPEC: spec-surface.md A.0. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const

/** `Error: message`, then the chain of causes as upstream prints it. Stacks only for bugs (errors without a code). */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return `Error: ${String(error)}`
  const coded = 'code' in error && typeof error.code === 'string'
  const lines = [`Error: ${error.message}${coded ? ` [${String(error.code)}]` : ''}`]
  const causes: string[] = []
  for (let cause = error.cause; cause instanceof Error && causes.length < 8; cause = cause.cause) causes.push(cause.message)
  if (causes.length) lines.push('', 'Caused by:', ...causes.map((text, i) => `    ${i}: ${text}`))
  if (!coded && error.stack) lines.push('', error.stack)
  return lines.join('\n')
}

// A proxy that may be ill: asked for its health while it is used, left out while it has none, and asked for nothing while nobody uses it.
// SPEC: spec-surface.md B.3 `proxy`; headers: nydus storage/src/backend/proxy.rs.

import { publish } from '../../core/diagnostics.ts'

export interface ProxyChoice {
  readonly url: string
  /** Asked for the proxy's health; undefined: it is judged by what becomes of requests. */
  readonly pingUrl: string | undefined
  /** Ask the server itself while the proxy is ill. */
  readonly fallback: boolean
  /** Between two looks at its health, and between two attempts to use it after a failure. */
  readonly checkIntervalMs: number
  /** Without requests for so long, nobody looks. */
  readonly checkPauseMs: number
  /** Ask for https:// addresses as http://, so that the proxy can share what passes. */
  readonly useHttp: boolean
}

/** Whether the proxy may be used now. Its timer keeps no process alive. */
export class ProxyHealth implements Disposable {
  readonly #choice: ProxyChoice
  readonly #ping: (url: URL) => Promise<boolean>
  #answersPings = true
  #failedAt = Number.NEGATIVE_INFINITY
  #usedAt = 0
  #timer: NodeJS.Timeout | undefined

  /** `ping`: whether a GET of the address succeeds; never rejects. */
  constructor(choice: ProxyChoice, ping: (url: URL) => Promise<boolean>) {
    this.#choice = choice
    this.#ping = ping
  }

  /** Called for each request: whether it may go through the proxy. */
  use(): boolean {
    const now = performance.now()
    this.#usedAt = now
    const { pingUrl, checkIntervalMs } = this.#choice
    if (pingUrl !== undefined && this.#timer === undefined) {
      this.#timer = setInterval(() => void this.#look(new URL(pingUrl)), checkIntervalMs)
      this.#timer.unref()
    }
    return this.#answersPings && now - this.#failedAt >= checkIntervalMs
  }

  /** A request failed in the proxy's hands. */
  failed(reason: string): void {
    if (performance.now() - this.#failedAt >= this.#choice.checkIntervalMs) publish('registry:proxy:ill', { proxy: hostOf(this.#choice.url), reason })
    this.#failedAt = performance.now()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  async #look(pingUrl: URL): Promise<void> {
    if (performance.now() - this.#usedAt > this.#choice.checkPauseMs) {
      clearInterval(this.#timer)
      this.#timer = undefined // the next request begins anew
      return
    }
    const answers = await this.#ping(pingUrl)
    if (this.#answersPings && !answers) publish('registry:proxy:ill', { proxy: hostOf(this.#choice.url), reason: 'no good answer to a ping' })
    this.#answersPings = answers
  }
}

/** What Dragonfly's proxy wants to know of a request for a blob; others ignore it. */
export function dragonflyHeaders({ prefetch }: { readonly prefetch: boolean }): Readonly<Record<string, string>> {
  return { 'x-dragonfly-use-p2p': 'true', 'x-dragonfly-priority': prefetch ? '3' : '6' }
}

/** Whether the proxy itself refused, not the server behind it. */
export function isProxyError(errorType: string | undefined): boolean {
  return errorType === 'proxy'
}

function hostOf(url: string): string {
  return new URL(url).host
}

// A repository and mirrors of it as one fetcher: mirrors in their order, the registry itself last. A mirror that fails is left out for a while, so
// that no more than one read at a time pays for it; one that sends wrong bytes too, which its caller finds out.

import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import type { RangeFetcher, RangeOptions } from './range-fetcher.ts'

export interface Mirror { readonly name: string; readonly fetcher: RangeFetcher }

/** LIMIT: how long a mirror is left out after a failure: most are restarts. */
const PAUSE_MS = 10_000

/** Owns all fetchers. */
export function mirroredFetcher(mirrors: readonly Mirror[], origin: RangeFetcher, now: () => number = () => performance.now()): RangeFetcher {
  const members = mirrors.map((mirror) => ({ ...mirror, usableAt: Number.NEGATIVE_INFINITY }))
  const exclude = (member: typeof members[number], code: string, message: string): void => {
    member.usableAt = now() + PAUSE_MS
    publish('registry:mirror:failed', { mirror: member.name, code, message })
  }
  const inOrder = async <T>(signal: AbortSignal, ask: (fetcher: RangeFetcher) => Promise<T>): Promise<T> => {
    for (const member of members) {
      if (member.usableAt > now()) continue
      try {
        return await ask(member.fetcher)
      } catch (error) {
        // a mirror that lets a deadline pass is left out of the next attempt; a reader who left says nothing of it
        const failure = signal.aborted ? signal.reason : error
        if (!isCoded(failure)) throw error
        // it may have other blobs
        if (failure.code === 'REGISTRY_NOT_FOUND') publish('registry:mirror:failed', { mirror: member.name, code: failure.code, message: failure.message })
        else exclude(member, failure.code, failure.message)
        signal.throwIfAborted()
      }
    }
    return await ask(origin)
  }
  const first = async <T>({ signal, afterWrong = false }: Pick<RangeOptions, 'signal' | 'afterWrong'>, ask: (fetcher: RangeFetcher) => Promise<T>): Promise<T> => {
    const suspect = afterWrong ? members.find((member) => member.usableAt <= now()) : undefined
    if (suspect === undefined) return await inOrder(signal, ask)
    exclude(suspect, 'REGISTRY_DIGEST_MISMATCH', 'it sends wrong bytes')
    try {
      return await inOrder(signal, ask)
    } catch (error) {
      if (signal.aborted || !isCoded(error)) throw error
      return await ask(suspect.fetcher) // nobody else has it: perhaps it had a bad moment
    }
  }
  return {
    readRange: (digest, offset, options) => first(options, (fetcher) => fetcher.readRange(digest, offset, options)),
    blobSize: (digest, options) => first(options, (fetcher) => fetcher.blobSize(digest, options)),
    exists: (digest, options) => first(options, async (fetcher) => {
      if (fetcher !== origin && !(await fetcher.exists(digest, options))) throw new CodedError('REGISTRY_NOT_FOUND', 'the mirror has no such blob')
      return await fetcher.exists(digest, options)
    }),
    useCredentials: (credentials) => origin.useCredentials(credentials),
    reconfigure(change) {
      origin.reconfigure(change)
      const { proxyUrl } = change
      if (proxyUrl !== undefined) for (const { fetcher } of members) fetcher.reconfigure({ proxyUrl })
    },
    async [Symbol.asyncDispose]() {
      for (const fetcher of [...members.map((member) => member.fetcher), origin]) await fetcher[Symbol.asyncDispose]()
    },
  }
}

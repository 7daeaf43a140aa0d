// A backend whose blobs lie in memory, and which does what a test asks: counts, waits, lies, fails.

import type { BlobBackend, ReadOptions } from '../../src/storage/index.ts'
import { CodedError } from '../../src/core/errors.ts'

export interface Request { readonly blobId: string; readonly offset: number; readonly length: number; readonly prefetch: boolean }

export class MemoryBackend implements BlobBackend {
  readonly type = 'memory'
  readonly requests: Request[] = []
  readonly blobs: Map<string, Uint8Array>
  /** Called before each answer; may wait or throw. */
  before: (request: Request, signal: AbortSignal) => Promise<void> | void = () => {}
  /** Tells of bytes that arrive, as slowly as it likes. */
  pace: ((progress: NonNullable<ReadOptions['progress']>) => Promise<void>) | undefined
  /** Changes an answer. */
  after: (bytes: Uint8Array, request: Request) => Uint8Array = (bytes) => bytes

  constructor(blobs: Iterable<readonly [string, Uint8Array]>) {
    this.blobs = new Map(blobs)
  }

  open(blobId: string) {
    const blob = (): Uint8Array => {
      const bytes = this.blobs.get(blobId)
      if (bytes === undefined) throw new CodedError('STORAGE_NOT_FOUND', `no blob ${blobId}`)
      return bytes
    }
    return {
      size: async ({ signal }: { signal: AbortSignal }) => { signal.throwIfAborted(); return blob().length },
      read: async (offset: number, length: number, { signal, prefetch = false, progress }: ReadOptions) => {
        const request = { blobId, offset, length, prefetch }
        this.requests.push(request)
        await this.before(request, signal)
        if (progress !== undefined) await this.pace?.(progress)
        signal.throwIfAborted()
        if (offset + length > blob().length) throw new CodedError('STORAGE_SHORT_READ', `blob ${blobId} is shorter`)
        return this.after(Uint8Array.from(blob().subarray(offset, offset + length)), request)
      },
    }
  }

  async close(): Promise<void> {}
}

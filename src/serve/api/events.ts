// The last errors of the daemon, for GET /api/v1/daemon/events.
// SPEC: spec-surface.md F.2; nydus utils/src/logger.rs ErrorHolder.

import { subscribe } from '../../core/diagnostics.ts'

/** COMPAT: upstream's limits; the oldest error goes first. */
const MAX_ERRORS = 500
const MAX_SIZE = 51_200

/** A ring of errors; it hears of them until it is closed. */
export class ErrorEvents {
  readonly #errors: string[] = []
  readonly #unsubscribe: readonly (() => void)[]
  #size = 0

  constructor() {
    this.#unsubscribe = [
      subscribe('serve:request:error', ({ opcode, errno, message }) => this.#add(`request ${opcode} failed with errno ${errno}: ${message}`)),
      subscribe('serve:warning:raised', ({ message }) => this.#add(message)),
      subscribe('storage:backend:error', ({ blobId, code, message }) => this.#add(`backend, blob ${blobId}: ${message} [${code}]`)),
      subscribe('storage:chunk:corrupt', ({ blobId, index, source }) => this.#add(`chunk ${index} of blob ${blobId} from the ${source} does not hash to its digest`)),
      subscribe('storage:cache:degraded', ({ directory, reason }) => this.#add(`cache ${directory}: ${reason}`)),
    ]
  }

  toJSON(): object {
    return { max_errors: MAX_ERRORS, total_errors: this.#errors.length, max_size: MAX_SIZE, total_size: this.#size, errors: this.#errors }
  }

  close(): void {
    for (const end of this.#unsubscribe) end()
  }

  #add(message: string): void {
    const text = `${new Date().toUTCString()} - ${message}`
    const size = Buffer.byteLength(text)
    if (size > MAX_SIZE) return
    while (this.#errors.length >= MAX_ERRORS || this.#size + size > MAX_SIZE) this.#size -= Buffer.byteLength(this.#errors.shift() ?? '')
    this.#errors.push(text)
    this.#size += size
  }
}

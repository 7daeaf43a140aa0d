// The connection of a virtual machine monitor: messages with descriptors, read piece by piece. A stranger's bytes: nothing is believed.

import { closeSync } from 'node:fs'
import { CodedError } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { MAX_MESSAGE_FDS, MESSAGE_F, MESSAGE_VERSION, type MessageHeader, messageHeader } from '../../wire/vhost-user/message.ts'
import { ERRNO } from '../errno.ts'

/** LIMIT: the largest payload, a memory table of 8 regions, is below 300 bytes. */
export const MAX_PAYLOAD = 4096

/** One message. Whoever gets it owns its descriptors. */
export interface Message { readonly header: MessageHeader; readonly payload: Buffer; readonly fds: number[] }

/** Where messages come from and answers go to. */
export interface FrontEnd {
  /** Readable when there is something to receive. */
  readonly fd: number
  /**
   * The next whole message, `'later'` when it has not arrived, `'closed'` when the peer has gone.
   * @throws SERVE_BAD_GUEST for a message that breaks the protocol
   */
  receive(): Message | 'later' | 'closed'
  /** Once for each message, when it is done; without a payload the peer hears nothing. @throws SERVE_BAD_GUEST when it does not read its answers */
  answer(request: number, payload: Uint8Array | undefined, fds?: readonly number[]): void
  /** Ends the peer's connection. */
  close(): void
}

/** A connection of this process, non-blocking. */
export class DirectFrontEnd implements FrontEnd {
  readonly fd: number
  #header: MessageHeader | undefined
  #bytes = Buffer.alloc(messageHeader.size)
  #have = 0
  #fds: number[] = []

  constructor(fd: number) {
    this.fd = fd
  }

  receive(): Message | 'later' | 'closed' {
    for (;;) {
      while (this.#have < this.#bytes.length) {
        const size = this.#read()
        if (size === -ERRNO.EAGAIN || size === -ERRNO.EINTR) return 'later'
        if (size === -ERRNO.EMSGSIZE) throw new CodedError('SERVE_BAD_GUEST', 'a message carries too many descriptors', {})
        if (size <= 0) return 'closed'
        this.#have += size
      }
      if (!this.#header) {
        this.#header = messageHeader.decode(this.#bytes)
        checkHeader(this.#header)
        this.#bytes = Buffer.alloc(this.#header.size)
        this.#have = 0
        continue
      }
      const message = { header: this.#header, payload: this.#bytes, fds: this.#fds }
      this.#header = undefined
      this.#bytes = Buffer.alloc(messageHeader.size)
      this.#have = 0
      this.#fds = []
      return message
    }
  }

  answer(request: number, payload: Uint8Array | undefined, fds: readonly number[] = []): void {
    if (!payload) return
    const bytes = Buffer.alloc(messageHeader.size + payload.length)
    messageHeader.encode({ request, flags: MESSAGE_VERSION | MESSAGE_F.REPLY, size: payload.length }, bytes)
    bytes.set(payload, messageHeader.size)
    const sent = native().sendFds(this.fd, bytes, Int32Array.from(fds))
    if (sent !== bytes.length) throw new CodedError('SERVE_BAD_GUEST', 'the monitor does not read its answers', { sent })
  }

  close(): void {
    closeAll(this.#fds.splice(0))
    closeSync(this.fd)
  }

  // Exactly the header, then exactly its payload: a larger read would join messages, and descriptors would go to the wrong one.
  #read(): number {
    const fds = new Int32Array(MAX_MESSAGE_FDS)
    const size = native().receiveFds(this.fd, this.#bytes.subarray(this.#have), fds)
    if (size > 0) this.#fds.push(...fds.filter((fd) => fd >= 0))
    if (this.#fds.length > MAX_MESSAGE_FDS) throw new CodedError('SERVE_BAD_GUEST', 'a message carries too many descriptors', {})
    return size
  }
}

/** Closes descriptors that nobody wants. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd)
}

/** @throws SERVE_BAD_GUEST */
export function checkHeader({ flags, size }: MessageHeader): void {
  if ((flags & MESSAGE_F.VERSION_MASK) !== MESSAGE_VERSION) throw new CodedError('SERVE_BAD_GUEST', 'the monitor speaks another version of vhost-user', { flags })
  if (size > MAX_PAYLOAD) throw new CodedError('SERVE_BAD_GUEST', 'a vhost-user message claims an impossible size', { size })
}

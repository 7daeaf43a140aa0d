// A front end whose connection a holder keeps (native/holder/guest.c): its messages come one by one, and each answer carries what a successor needs.

import { closeSync } from 'node:fs'
import { native } from '../../native/load.ts'
import { memoryFile } from '../../native/memory-file.ts'
import { MAX_MESSAGE_FDS, MESSAGE_F, MESSAGE_VERSION, messageHeader } from '../../wire/vhost-user/message.ts'
import { ERRNO } from '../errno.ts'
import { encodeDevice, type SavedDevice } from './device-state.ts'
import { checkHeader, type FrontEnd, MAX_PAYLOAD, type Message } from './front-end.ts'

const MESSAGE = Buffer.from('message\0')

/** The holder's end of a connection, or of many, one after the other. */
export class HeldFrontEnd implements FrontEnd {
  readonly fd: number
  readonly #save: () => { state: SavedDevice; fds: number[] }
  readonly #bytes = Buffer.alloc(MESSAGE.length + messageHeader.size + MAX_PAYLOAD)

  /** `save`: what a successor needs now. The descriptors stay its own. */
  constructor(channel: number, save: () => { state: SavedDevice; fds: number[] }) {
    this.fd = channel
    this.#save = save
  }

  receive(): Message | 'later' | 'closed' {
    const fds = new Int32Array(MAX_MESSAGE_FDS)
    const size = native().receiveFds(this.fd, this.#bytes, fds)
    if (size === -ERRNO.EAGAIN || size <= 0) return 'later' // a holder that is gone takes this process with it
    if (size < MESSAGE.length + messageHeader.size || !this.#bytes.subarray(0, MESSAGE.length).equals(MESSAGE)) return 'closed'
    const header = messageHeader.decode(this.#bytes, MESSAGE.length)
    const message = { header, payload: Buffer.from(this.#bytes.subarray(MESSAGE.length + messageHeader.size, size)), fds: [...fds].filter((fd) => fd >= 0) }
    checkHeader(header)
    return message
  }

  answer(request: number, payload: Uint8Array | undefined, fds: readonly number[] = []): void {
    this.#send(false, payload ? Buffer.concat([messageHeader.encode({ request, flags: MESSAGE_VERSION | MESSAGE_F.REPLY, size: payload.length }), payload]) : undefined, fds)
  }

  close(): void {
    this.#send(true, undefined, [])
  }

  #send(ends: boolean, reply: Uint8Array | undefined, lent: readonly number[]): void {
    const { state, fds } = this.#save()
    const file = memoryFile('nydusd-device', encodeDevice(state))
    try {
      const words = Buffer.from(`answer\0${1 + fds.length}\0${ends ? 1 : 0}\0`)
      native().sendFds(this.fd, reply ? Buffer.concat([words, reply]) : words, Int32Array.from([file, ...fds, ...lent]))
    } finally {
      closeSync(file)
    }
  }
}

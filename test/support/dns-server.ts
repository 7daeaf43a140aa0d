// A name server for one name, which can be told to fail. SPEC: RFC 1035 4.1.

import { createSocket } from 'node:dgram'

export interface DnsServer extends AsyncDisposable {
  readonly address: string
  /** Fails all questions: by SERVFAIL, every second time by NXDOMAIN. */
  isBroken: boolean
  /** Questions that were failed. */
  readonly failed: number
}

const ANSWER = 0x8180
const SERVFAIL = 2
const NXDOMAIN = 3
const HEADER = 12
const TYPE_A = 1

/** Answers on port 53 of a loopback address of its own: every name is this machine. */
export async function startDnsServer(): Promise<DnsServer> {
  const address = `127.${(process.pid >> 16) & 255}.${(process.pid >> 8) & 255}.${process.pid & 255}`
  const socket = createSocket('udp4')
  const state = { address, isBroken: false, failed: 0, async [Symbol.asyncDispose]() { await new Promise<void>((resolve) => { socket.close(() => resolve()) }) } }
  socket.on('message', (query, from) => {
    let end = HEADER
    while (query[end] !== undefined && query[end] !== 0) end += query[end]! + 1
    const question = query.subarray(HEADER, end + 5)
    const header = Buffer.alloc(HEADER)
    query.copy(header, 0, 0, 2)
    const isA = question.readUInt16BE(question.length - 4) === TYPE_A
    const answers = !state.isBroken && isA ? 1 : 0
    header.writeUInt16BE(ANSWER | (state.isBroken ? (state.failed++ % 2 === 0 ? SERVFAIL : NXDOMAIN) : 0), 2)
    header.writeUInt16BE(1, 4)
    header.writeUInt16BE(answers, 6)
    const record = Buffer.from([0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1])
    socket.send(Buffer.concat([header, question, ...(answers === 1 ? [record] : [])]), from.port, from.address)
  })
  await new Promise<void>((resolve, reject) => { socket.once('error', reject).bind(53, address, resolve) })
  return state
}

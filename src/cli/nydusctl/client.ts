// One request after the other to the API of a nydusd, over its Unix socket.

import { request } from 'node:http'
import { CodedError, foreignText } from '../../core/errors.ts'

/** LIMIT: a mount opens files only, so an answer that takes longer comes from a daemon that hangs. COMPAT: the snapshotter's limit. */
const TIMEOUT_MS = 30_000

/** What a route answered: its status, its JSON (undefined for an empty body) and its text. */
export interface Answer { readonly status: number; readonly body: unknown; readonly text: string }

/** The API behind a socket. */
export class Client {
  readonly #socket: string

  constructor(socket: string) {
    this.#socket = socket
  }

  /** @throws SERVE_NOT_READY when nobody answers; CONFIG_INVALID with the daemon's words when it refuses */
  async ask(method: string, url: string, body?: object): Promise<Answer> {
    const answer = await this.send(method, url, body)
    if (answer.status === 200 || answer.status === 204) return answer
    throw new CodedError('CONFIG_INVALID', `the daemon refuses (${answer.status}): ${foreignText(messageOf(answer), 2000)}`, { status: answer.status })
  }

  /** The answer, whatever it is. @throws SERVE_NOT_READY when nobody answers */
  send(method: string, url: string, body?: object): Promise<Answer> {
    const text = body === undefined ? '' : JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void => reject(new CodedError('SERVE_NOT_READY', `no daemon answers on ${this.#socket}: ${cause.message}`, { socket: this.#socket }, { cause }))
      const sent = request({ socketPath: this.#socket, method, path: url, agent: false, timeout: TIMEOUT_MS, headers: { 'content-length': Buffer.byteLength(text) } }, (response) => {
        let received = ''
        response.setEncoding('utf8').on('data', (part: string) => { received += part }).on('error', fail).on('end', () => {
          try {
            resolve({ status: response.statusCode ?? 0, body: received === '' ? undefined : JSON.parse(received), text: received })
          } catch (cause) {
            fail(cause instanceof Error ? cause : new Error(String(cause)))
          }
        })
      })
      sent.on('timeout', () => sent.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)))
      sent.on('error', fail).end(text)
    })
  }
}

function messageOf({ body, text }: Answer): string {
  return typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string' ? body.message : text
}

// Upload sessions of the embedded registry. A session is a temporary file of the layout; it ends as a verified blob or not at all.

import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isDigest, type Digest } from '../../format/oci/digest.ts'
import type { BlobWriter, LayoutStore } from '../layout/layout-store.ts'
import { Refusal } from './reply.ts'

/** LIMIT: each holds a descriptor and disk space; pushes run five at a time. */
const MAX_SESSIONS = 64
/** LIMIT: a client that was silent for this long has gone. */
const SESSION_IDLE_MS = 10 * 60_000

interface Session { readonly repository: string; readonly writer: BlobWriter; timer: NodeJS.Timeout; busy: boolean }

export interface UploadExchange { readonly request: IncomingMessage; readonly response: ServerResponse; readonly query: URLSearchParams }

/** Owns the sessions. */
export class Uploads implements AsyncDisposable {
  readonly #store: LayoutStore
  readonly #maxBytes: number
  readonly #sessions = new Map<string, Session>()
  #opening = 0

  constructor(store: LayoutStore, { maxBytes }: { maxBytes: number }) {
    this.#store = store
    this.#maxBytes = maxBytes
  }

  /** POST uploads/: a mount (201 when the blob is in the layout), a whole blob with ?digest=, or a new session. */
  async start(repository: string, exchange: UploadExchange): Promise<void> {
    const { query, response, request } = exchange
    const mount = query.get('mount')
    if (mount !== null && isDigest(mount) && await this.#store.blobSize(mount) !== undefined) return created(response, repository, mount)
    const digest = digestIn(query)
    const { id, session } = await this.#open(repository)
    if (digest !== undefined && mount === null) return this.#close(id, session, { request, response, digest })
    accepted(response, 202, id, session)
  }

  /** GET, PATCH, PUT and DELETE of a session. */
  async continue(repository: string, id: string, exchange: UploadExchange): Promise<void> {
    const session = this.#sessions.get(id)
    if (session === undefined || session.repository !== repository) throw new Refusal(404, 'BLOB_UPLOAD_UNKNOWN', 'no such upload')
    const { request, response, query } = exchange
    if (session.busy) throw new Refusal(409, 'BLOB_UPLOAD_INVALID', 'the upload is being written by another request')
    session.timer.refresh()
    switch (request.method) {
      case 'GET': return accepted(response, 204, id, session)
      case 'DELETE':
        await this.#end(id)
        response.writeHead(204).end()
        return
      case 'PATCH':
        await this.#receive(session, request)
        return accepted(response, 202, id, session)
      case 'PUT': {
        const digest = digestIn(query)
        if (digest === undefined) throw new Refusal(400, 'DIGEST_INVALID', 'a PUT needs ?digest=')
        return this.#close(id, session, { request, response, digest })
      }
      default: throw new Refusal(405, 'UNSUPPORTED', 'method not allowed')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of [...this.#sessions.keys()]) await this.#end(id)
  }

  async #open(repository: string): Promise<{ id: string; session: Session }> {
    if (this.#sessions.size + this.#opening >= MAX_SESSIONS) throw new Refusal(429, 'TOOMANYREQUESTS', 'too many uploads at once', { 'retry-after': '5' })
    this.#opening++
    try {
      const id = randomUUID()
      const session: Session = { repository, writer: await this.#store.receive(), timer: setTimeout(() => void this.#end(id), SESSION_IDLE_MS).unref(), busy: false }
      this.#sessions.set(id, session)
      return { id, session }
    } finally {
      this.#opening--
    }
  }

  async #close(id: string, session: Session, { request, response, digest }: { request: IncomingMessage; response: ServerResponse; digest: Digest }): Promise<void> {
    try {
      await this.#receive(session, request)
      await session.writer.commit(digest)
    } finally {
      await this.#end(id) // half a last body cannot be continued
    }
    created(response, session.repository, digest)
  }

  /** Appends the body. After a broken connection the session holds what had come, and GET says how much. */
  async #receive(session: Session, request: IncomingMessage): Promise<void> {
    const claimed = /^(\d+)-\d+$/.exec(request.headers['content-range'] ?? '')?.[1]
    const { writer } = session
    if (claimed !== undefined && Number(claimed) !== writer.size) {
      throw new Refusal(416, 'BLOB_UPLOAD_INVALID', `the upload has ${writer.size} bytes`, { range: rangeText(writer.size) })
    }
    const tooLarge = () => new Refusal(413, 'SIZE_INVALID', `blobs here are at most ${this.#maxBytes} bytes`)
    if (writer.size + Number(request.headers['content-length'] ?? 0) > this.#maxBytes) throw tooLarge()
    session.busy = true
    try {
      for await (const chunk of request) {
        if (writer.size + chunk.length > this.#maxBytes) throw tooLarge()
        await writer.write(chunk)
        session.timer.refresh()
      }
    } finally {
      session.busy = false
    }
  }

  async #end(id: string): Promise<void> {
    const session = this.#sessions.get(id)
    if (session === undefined) return
    this.#sessions.delete(id)
    clearTimeout(session.timer)
    await session.writer[Symbol.asyncDispose]()
  }
}

function digestIn(query: URLSearchParams): Digest | undefined {
  const digest = query.get('digest')
  if (digest === null) return undefined
  if (!isDigest(digest)) throw new Refusal(400, 'DIGEST_INVALID', 'no sha256 or sha512 digest')
  return digest
}

function accepted(response: ServerResponse, status: number, id: string, { repository, writer }: Session): void {
  response.writeHead(status, {
    location: `/v2/${repository}/blobs/uploads/${id}`, 'docker-upload-uuid': id, range: rangeText(writer.size),
    ...(status === 204 ? {} : { 'content-length': 0 }),
  }).end()
}

function created(response: ServerResponse, repository: string, digest: Digest): void {
  response.writeHead(201, { location: `/v2/${repository}/blobs/${digest}`, 'docker-content-digest': digest, 'content-length': 0 }).end()
}

function rangeText(size: number): string {
  return `0-${Math.max(0, size - 1)}`
}

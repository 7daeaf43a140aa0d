// `nydusify serve`: the embedded registry until a signal comes.

import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import { subscribe } from '../../core/diagnostics.ts'
import { parseLocation, serveLayout } from '../../registry/index.ts'
import { usageError, type Values } from './flags.ts'
import { log } from './log.ts'
import { untilSignal } from '../signals.ts'

/** Prints `serving … at http://HOST:PORT` on stdout when it listens; resolves with 0 after SIGINT or SIGTERM. */
export async function serveFromCommandLine(values: Values): Promise<number> {
  const [where, ...more] = values.positionals
  if (where === undefined || more.length > 0) throw usageError('serve: name one layout, oci:DIR')
  const location = parseLocation(where)
  if (location.kind !== 'oci' || location.image !== undefined) throw usageError(`serve: "${where}" is not oci:DIR`)
  const { host, port } = listenAddress(values.text('listen'))
  const accessLog = values.optional('access-log')
  const file = accessLog === undefined ? undefined : createWriteStream(accessLog, { flags: 'a' })
  const end = subscribe('registry:access:done', (entry) => {
    file?.write(`${JSON.stringify(entry)}\n`)
    log.debug(`${entry.method} ${entry.path} ${entry.status} ${entry.bytes}`)
  })
  try {
    await using server = await serveLayout(location.path, { host, port, readOnly: values.isOn('read-only') })
    process.stdout.write(`serving ${location.path} at ${server.url}; images with a bare tag are in ${server.host}/${server.repository}\n`)
    await untilSignal((signal) => once(signal, 'abort'))
    return 0
  } finally {
    end()
    file?.end()
  }
}

function listenAddress(text: string): { host: string; port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? []
  if (port === undefined || Number(port) > 65535) throw usageError(`--listen: "${text}" is not ADDRESS:PORT`)
  return { host: bracketed ?? (plain || '127.0.0.1'), port: Number(port) }
}

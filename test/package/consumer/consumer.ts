// A user's program: compiled with `tsc --strict` against the package's types by consumer.test.ts, then run.

import { buffer } from 'node:stream/consumers'
import { type CheckReport, type ConvertResult, hasCode, openImage, convert, check, serveLayout, type BlobBackend, type ProgressEvent } from 'nydus-ts'

const [, , source, work] = process.argv
if (source === undefined || work === undefined) throw new Error('usage: consumer SOURCE WORK')

const seen = new Set<ProgressEvent['type']>()
const converted: ConvertResult = await convert({ source, target: `oci:${work}/target:n`, workDirectory: `${work}/w`, onProgress: (event) => { seen.add(event.type) } })

const files = await openImage(`oci:${work}/target:n`)
const names: string[] = await files.readdir('/')
const raw: Buffer[] = await files.readdir(Buffer.from('/'), { encoding: 'buffer' })
const stat = await files.lstat('/lib')
const text = (await files.readFile('/change')).toString('utf8')
const streamed = await buffer(files.createReadStream('/bin/tool', { start: 10, end: 20 }))
const link: string = await files.readlink('lib')
const attributes = await files.listXattrs('/caps')
let code = ''
try {
  await files.readFile('/no/such')
} catch (error) {
  if (hasCode(error, 'RAFS_NOT_FOUND')) code = error.code
}
await files.close()

const report: CheckReport = await check({ target: `oci:${work}/target:n`, source, workDirectory: `${work}/check`, through: 'read' })

const aborted = new AbortController()
aborted.abort(new Error('no longer wanted'))
const early = await convert({ source, target: `oci:${work}/never:n`, workDirectory: `${work}/w2`, signal: aborted.signal }).then(() => 'finished', (error: unknown) => (error instanceof Error ? error.message : ''))

await using server = await serveLayout(`${work}/target`, { readOnly: true })
const backend: BlobBackend = { type: 'mine', open: () => ({ size: async () => 0, read: async () => { throw new Error('not asked') } }), close: async () => {} }
const custom = await openImage(`${server.host}/${server.repository}:n`, { registry: { plainHttp: true }, backend })
const refused = await custom.readFile('/change').then(() => '', (error: unknown) => (error instanceof Error ? error.message : ''))
await custom.close()

process.stdout.write(JSON.stringify({
  action: converted.action, events: [...seen].sort(), names: names.length, raw: raw.length, isLink: stat.isSymbolicLink(), text, streamed: streamed.length, link, attributes, code,
  findings: report.findings.length, early, refused,
}))

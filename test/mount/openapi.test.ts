// docs/openapi.yaml, docs/metrics.md and the dashboard against a running daemon: paths, methods, status codes, every field of every answer.

import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { PROMETHEUS_FAMILIES } from '../../src/serve/api/prometheus.ts'
import { ROUTES } from '../../src/serve/http-api.ts'
import { VECTORS } from '../support/expect.ts'
import { Scratch, startNydusd } from '../support/nydusd.ts'

const DOCS = path.resolve(import.meta.dirname, '../../docs')
type Schema = { readonly [key: string]: unknown }
interface Operation { readonly parameters?: readonly { readonly name: string; readonly required?: boolean }[]; readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>> }
// SAFETY: a document of ours; its flow style is JSON below the first line.
const openapi = JSON.parse(readFileSync(path.join(DOCS, 'openapi.yaml'), 'utf8').replace(/^#.*\n/, '')) as {
  paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>; components: { schemas: Readonly<Record<string, Schema>> }
}

/** What is wrong with `value`: as much of JSON Schema as the document uses. */
function wrong(schema: Schema, value: unknown, at = '$'): string[] {
  const { $ref, type, properties, additionalProperties, required, items, anyOf } = schema
  if (typeof $ref === 'string') return wrong(openapi.components.schemas[$ref.split('/').at(-1)!]!, value, at)
  if (Array.isArray(anyOf)) return anyOf.some((one: Schema) => wrong(one, value, at).length === 0) ? [] : [`${at}: none of the alternatives`]
  if ('const' in schema && value !== schema['const']) return [`${at}: not ${String(schema['const'])}`]
  if (Array.isArray(schema['enum']) && !schema['enum'].includes(value)) return [`${at}: ${String(value)} is not listed`]
  const kind = value === null ? 'null' : Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : typeof value
  if (type !== undefined && ![type].flat().includes(kind)) return [`${at}: is of type ${kind}`]
  if (typeof schema['minimum'] === 'number' && Number(value) < schema['minimum']) return [`${at}: ${String(value)} is too small`]
  if (Array.isArray(value)) {
    const length = schema['minItems'] !== undefined && value.length !== schema['minItems'] ? [`${at}: ${value.length} items`] : []
    return [...length, ...value.flatMap((one, i) => (items ? wrong(items as Schema, one, `${at}[${i}]`) : []))]
  }
  if (typeof value !== 'object' || value === null) return []
  const known = new Map(Object.entries((properties ?? {}) as Record<string, Schema>))
  const missing = ((required ?? []) as string[]).filter((name) => !(name in value)).map((name) => `${at}.${name}: is missing`)
  return [...missing, ...Object.entries(value).flatMap(([name, one]) => {
    const property = known.get(name) ?? (typeof additionalProperties === 'object' ? additionalProperties as Schema : undefined)
    if (property) return wrong(property, one, `${at}.${name}`)
    return additionalProperties === false ? [`${at}.${name}: is not in the document`] : []
  })]
}

function ask(socketPath: string, method: string, url: string, body?: string): Promise<{ status: number; type: string; text: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath, method, path: url, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text }))
    }).on('error', reject).end(body)
  })
}

describe('the API', () => {
  it('has the paths and methods of openapi.yaml', () => {
    const documented = Object.entries(openapi.paths).map(([name, methods]) => [name, Object.keys(methods).map((method) => method.toUpperCase()).sort()])
    expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(Object.entries(ROUTES).map(([name, methods]) => [name, Object.keys(methods).sort()])))
  })

  it('answers as openapi.yaml says: status codes, content types, every field', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, [])
    const config = JSON.stringify({ ...JSON.parse(readFileSync(scratch.config(), 'utf8')), iostats_files: true, access_pattern: true })
    const mount = JSON.stringify({ fs_type: 'rafs', source: path.join(VECTORS, 'v6-small-zstd/image.boot'), config })
    const seen = new Set<string>()
    const check = async (status: number, method: string, url: string, body?: string): Promise<string> => {
      const answer = await ask(scratch.socket, method, url, body)
      const name = url.split('?')[0]!
      const what = `${method} ${url}: ${answer.text}`
      expect(answer.status, what).toBe(status)
      const response = openapi.paths[name]?.[method.toLowerCase()]?.responses[String(status)]
      expect(response, `${method} ${name} ${status} is documented`).toBeDefined()
      const [[type, { schema }] = [undefined, { schema: {} }]] = Object.entries(response?.content ?? {})
      expect(answer.type.split(';')[0], what).toBe(type ?? '')
      if (type === 'application/json') expect(wrong(schema, JSON.parse(answer.text)), what).toEqual([])
      seen.add(`${method} ${name}`)
      return answer.text
    }
    await check(500, 'DELETE', '/api/v1/mount?mountpoint=%2Fm')
    await check(400, 'DELETE', '/api/v1/mount')
    await check(400, 'POST', '/api/v1/mount?mountpoint=%2Fm', '{}')
    await check(400, 'POST', '/api/v1/mount?mountpoint=%2Fm', mount.replace('"rafs"', '"passthroughfs"'))
    await check(500, 'PUT', '/api/v1/mount?mountpoint=%2Fm', mount)
    await check(204, 'POST', '/api/v1/mount?mountpoint=%2Fm', mount)
    await check(204, 'PUT', '/api/v1/mount?mountpoint=%2Fm', mount)
    for (const version of ['v1', 'v2']) {
      await check(200, 'GET', `/api/${version}/daemon`)
      await check(204, 'PUT', `/api/${version}/daemon`, '{"log_level":"info"}')
      await check(400, 'PUT', `/api/${version}/daemon`, '{}')
    }
    await check(200, 'GET', '/api/v1/daemon/events')
    await check(200, 'GET', '/api/v1/daemon/backend?mountpoint=%2Fm')
    await check(500, 'GET', '/api/v1/daemon/backend?mountpoint=%2Fnone')
    await check(400, 'PUT', '/api/v1/daemon/start')
    await check(400, 'PUT', '/api/v1/daemon/fuse/takeover')
    await check(400, 'PUT', '/api/v1/daemon/fuse/sendfd')
    await check(200, 'GET', '/api/v1/config?id=%2Fm')
    await check(500, 'PUT', '/api/v1/config?id=%2Fm', '{"unknown":"x"}')
    for (const kind of ['', '/backend', '/files', '/pattern']) {
      await check(200, 'GET', `/api/v1/metrics${kind}?id=%2Fm`)
      await check(404, 'GET', `/api/v1/metrics${kind}?id=%2Fnone`)
    }
    await check(200, 'GET', '/api/v1/metrics/blobcache')
    await check(204, 'GET', '/api/v1/metrics/inflight')
    await check(204, 'PUT', '/api/v1/trace?id=%2Fm')
    await check(200, 'GET', '/api/v1/trace?id=%2Fm')
    await check(200, 'DELETE', '/api/v1/trace?id=%2Fm')
    await check(200, 'GET', '/api/v2/metrics')
    const text = await check(200, 'GET', '/metrics')
    const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!] as const)
    expect(Object.fromEntries(families)).toEqual(Object.fromEntries(Object.entries(PROMETHEUS_FAMILIES).map(([name, [type]]) => [name, type])))
    for (const line of text.trimEnd().split('\n')) expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \d+(\.\d+)?(e-?\d+)?)$/)
    expect(text).toMatch(/^nydusd_fs_read_duration_seconds_bucket\{mountpoint="\/m",le="\+Inf"\} \d+$/m)
    await check(204, 'DELETE', '/api/v1/mount?mountpoint=%2Fm')
    await check(204, 'PUT', '/api/v1/daemon/exit')
    await daemon.ended
    expect([...seen].sort()).toEqual(Object.entries(openapi.paths).flatMap(([name, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${name}`)).sort())
  })

  it('has metrics that docs/metrics.md explains and the dashboard uses, and no others', () => {
    const page = readFileSync(path.join(DOCS, 'metrics.md'), 'utf8')
    for (const [name, [type, help]] of Object.entries(PROMETHEUS_FAMILIES)) expect(page).toContain(`| \`${name}\` | ${type} | ${help} |`)
    const used = [...readFileSync(path.join(DOCS, 'grafana-dashboard.json'), 'utf8').matchAll(/nydusd_\w+/g)].map(([name]) => name.replace(/_(bucket|sum|count)$/, ''))
    expect(used.length).toBeGreaterThan(10)
    for (const name of used) expect(Object.keys(PROMETHEUS_FAMILIES)).toContain(name)
  })
})

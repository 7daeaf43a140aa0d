import { describe, expect, it } from 'vitest'
import { parseImageConfig, parseIndex, parseManifest } from './descriptor.ts'
import { asDigest } from './digest.ts'
import { encodeImageConfig, encodeIndex, encodeManifest } from './encode.ts'
import { goJson } from './go-json.ts'
import { layerName } from './whiteout.ts'

const digest = asDigest(`sha256:${'a'.repeat(64)}`)
const layer = { size: 3, digest, mediaType: 'application/x' }

describe('JSON as Go writes it', () => {
  it('has fields in the order of the specification and map keys in byte order', () => {
    const manifest = encodeManifest({ annotations: { b: '1', a: '<2>', '\u{10000}': '', '\uffee': '' }, layers: [{ ...layer, annotations: { z: '', y: '' } }], config: layer, mediaType: 'm', schemaVersion: 2 })
    const descriptor = `"mediaType":"application/x","digest":"${digest}","size":3`
    expect(manifest.toString()).toBe(`{"schemaVersion":2,"mediaType":"m","config":{${descriptor}},"layers":[{${descriptor},"annotations":{"y":"","z":""}}],"annotations":{"a":"\\u003c2\\u003e","b":"1","\uffee":"","\u{10000}":""}}`)
  })
  it('keeps sizes of 0 and leaves out what is empty', () => {
    expect(encodeIndex({ schemaVersion: 2, manifests: [{ ...layer, size: 0, urls: [], annotations: {}, platform: { os: 'linux', architecture: 'amd64', variant: '' }, artifactType: 'a/b' }] }).toString()).toBe(
      `{"schemaVersion":2,"manifests":[{"mediaType":"application/x","digest":"${digest}","size":0,"platform":{"architecture":"amd64","os":"linux"},"artifactType":"a/b"}]}`)
    expect(encodeManifest({ schemaVersion: 2, config: layer, layers: [] }).toString()).toContain('"layers":[]}')
  })
  it('indents as MarshalIndent does', () => {
    const index = { schemaVersion: 2, manifests: [{ ...layer, annotations: { 'a{,"': ': [' }, urls: ['x', 'y'] }] } as const
    expect(encodeIndex(index, { indent: true }).toString()).toBe(JSON.stringify(JSON.parse(encodeIndex(index).toString()), undefined, 2))
    expect(encodeIndex({ schemaVersion: 2, manifests: [] }, { indent: true }).toString()).toBe('{\n  "schemaVersion": 2,\n  "manifests": []\n}')
  })
  it('escapes as Go does', () => {
    expect(goJson('<a href="x">&\u2028\u2029\u007f\b\f\n\u0001é', 'plain', { foreignKeys: 'drop' })).toBe('"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\\u2029\u007f\\b\\f\\n\\u0001é"')
    expect(goJson({ x: [1, null, true, { b: 1, a: '&' }] }, 'plain', { foreignKeys: 'drop' })).toBe('{"x":[1,null,true,{"b":1,"a":"\\u0026"}]}')
  })
  it.each([
    ['2024-05-01T10:20:30.120000000Z', '2024-05-01T10:20:30.12Z'], ['2024-05-01T10:20:30.000Z', '2024-05-01T10:20:30Z'], ['2024-05-01T10:20:30+00:00', '2024-05-01T10:20:30Z'],
    ['2024-05-01T10:20:30.1234567891+02:00', '2024-05-01T10:20:30.123456789+02:00'], ['no time', 'no time'],
  ])('writes the time %s as %s', (created, want) => expect(goJson({ created }, { struct: [['created', 'time']] }, { foreignKeys: 'drop' })).toBe(`{"created":"${want}"}`))

  it('keeps or drops what only Docker knows in a config', () => {
    const config = parseImageConfig(JSON.stringify({ architecture: 'amd64', docker_version: '20', os: 'linux', rootfs: { diff_ids: [digest], type: 'layers' }, history: [{ created_by: 'a && b', created: '2024-05-01T10:20:30.500Z' }, { empty_layer: true, comment: 'c' }],
      config: { Healthcheck: { Test: ['x'] }, Labels: { b: '', a: '' }, Cmd: ['sh'], Env: null, Volumes: { '/v': {} }, ArgsEscaped: true } }))
    const common = `"Cmd":["sh"],"Volumes":{"/v":{}},"Labels":{"a":"","b":""},"ArgsEscaped":true`
    const rest = `"rootfs":{"type":"layers","diff_ids":["${digest}"]},"history":[{"created":"2024-05-01T10:20:30.5Z","created_by":"a \\u0026\\u0026 b"},{"comment":"c","empty_layer":true}]`
    expect(encodeImageConfig(config, { foreignKeys: 'drop' }).toString()).toBe(`{"architecture":"amd64","os":"linux","config":{${common}},${rest}}`)
    expect(encodeImageConfig(config, { foreignKeys: 'keep' }).toString()).toBe(`{"architecture":"amd64","os":"linux","config":{${common},"Healthcheck":{"Test":["x"]}},${rest},"docker_version":"20"}`)
  })
  it('writes an empty config as Go writes an empty struct', () => {
    expect(encodeImageConfig(parseImageConfig(`{"rootfs":{"type":"layers","diff_ids":["${digest}"]}}`), { foreignKeys: 'drop' }).toString()).toBe(`{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":["${digest}"]}}`)
  })
  it('is read back as the same values', () => {
    const manifest = { schemaVersion: 2 as const, config: layer, layers: [layer], subject: layer, annotations: { a: 'b' } }
    expect(parseManifest(encodeManifest(manifest))).toEqual(manifest)
    const index = { schemaVersion: 2 as const, mediaType: 'm', manifests: [{ ...layer, platform: { os: 'linux', architecture: 'arm64', 'os.features': ['f'] } }] }
    expect(parseIndex(encodeIndex(index))).toEqual(index)
  })
})

describe('names in layers', () => {
  it.each([
    ['file', { kind: 'entry' }], ['wh.file', { kind: 'entry' }], ['.wh', { kind: 'entry' }], ['.wh.file', { kind: 'whiteout', target: 'file' }], ['.wh.\xff', { kind: 'whiteout', target: '\xff' }], ['.wh..hidden', { kind: 'whiteout', target: '.hidden' }],
    ['.wh..wh..opq', { kind: 'opaque' }], ['.wh..wh.plnk', { kind: 'bookkeeping' }], ['.wh..wh..opq2', { kind: 'bookkeeping' }], ['.wh.', { kind: 'invalid' }], ['.wh..', { kind: 'invalid' }], ['.wh...', { kind: 'invalid' }],
  ])('reads %s', (name, want) => expect(layerName(name)).toEqual(want))
})

// Descriptors, manifests, indexes and image configs: their types, and checked parsing of the JSON that strangers send.
// SPEC: opencontainers/image-spec v1.1 descriptor.md, manifest.md, image-index.md, config.md; Docker schema 2 has the same fields.
// Checked by hand, not with zod: these are on the start-up path of every pull, and zod costs more to load than the pull's first request.

import { CodedError, foreignText } from '../../core/errors.ts'
import { asDigest, type Digest } from './digest.ts'
import type { Platform } from './platform.ts'

export type Annotations = Readonly<Record<string, string>>

/** Fields in the order in which Go writes them; so too below. Sizes are bytes. */
export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly urls?: readonly string[]
  readonly annotations?: Annotations
  /** Base64 of the content itself, when it is embedded. */
  readonly data?: string
  readonly platform?: Platform
  readonly artifactType?: string
}

export interface Manifest {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly artifactType?: string
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
  readonly subject?: Descriptor
  readonly annotations?: Annotations
}

export interface Index {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly artifactType?: string
  readonly manifests: readonly Descriptor[]
  readonly subject?: Descriptor
  readonly annotations?: Annotations
}

export interface HistoryItem {
  readonly created?: string
  readonly created_by?: string
  readonly author?: string
  readonly comment?: string
  readonly empty_layer?: boolean
}

/** An image config. Only what this project reads is checked and typed; everything else (`config`, Docker's own keys) is carried along as it came. */
export interface ImageConfig {
  readonly created?: string
  readonly author?: string
  readonly architecture: string
  readonly os: string
  readonly 'os.version'?: string
  readonly 'os.features'?: readonly string[]
  readonly variant?: string
  readonly config?: Readonly<Record<string, unknown>>
  readonly rootfs: { readonly type: string; readonly diff_ids: readonly Digest[] }
  readonly history?: readonly HistoryItem[]
  readonly [key: string]: unknown
}

/** LIMIT: 127 layers is overlayfs' and docker's bound; 4096 leaves room for artifacts and indexes, and bounds what a hostile manifest costs. */
export const MAX_DESCRIPTORS = 4096

/** A manifest from its JSON. Throws FORMAT_INVALID with the path of the wrong field (`layers[3].digest: …`). */
export function parseManifest(json: Uint8Array | string): Manifest {
  const value = record(parseJson(json, 'manifest'), 'manifest')
  schemaVersion2(value, 'manifest')
  unambiguous(value, 'manifest', ['manifests'])
  return {
    schemaVersion: 2,
    ...optionalTexts(value, ['mediaType', 'artifactType'], 'manifest'),
    config: toDescriptor(value['config'], 'config'),
    layers: list(value['layers'] ?? [], 'layers').map((layer, index) => toDescriptor(layer, `layers[${index}]`)),
    ...(value['subject'] === undefined ? {} : { subject: toDescriptor(value['subject'], 'subject') }),
    ...annotationsOf(value, 'manifest'),
  }
}

/** An index (or Docker manifest list) from its JSON. Throws FORMAT_INVALID like `parseManifest`. */
export function parseIndex(json: Uint8Array | string): Index {
  const value = record(parseJson(json, 'index'), 'index')
  schemaVersion2(value, 'index')
  unambiguous(value, 'index', ['config', 'layers'])
  return {
    schemaVersion: 2,
    ...optionalTexts(value, ['mediaType', 'artifactType'], 'index'),
    manifests: list(value['manifests'] ?? [], 'manifests').map((item, index) => toDescriptor(item, `manifests[${index}]`)),
    ...(value['subject'] === undefined ? {} : { subject: toDescriptor(value['subject'], 'subject') }),
    ...annotationsOf(value, 'index'),
  }
}

/** An image config from its JSON; unknown keys are kept. Throws FORMAT_INVALID. */
export function parseImageConfig(json: Uint8Array | string): ImageConfig {
  const value = record(parseJson(json, 'image config'), 'image config')
  const rootfs = record(value['rootfs'], 'rootfs')
  const history = value['history'] === undefined || value['history'] === null ? undefined : list(value['history'], 'history')
  const { history: _history, config, ...rest } = value
  return {
    ...rest,
    ...optionalTexts(value, ['created', 'author', 'os.version', 'variant'], 'image config'),
    architecture: text(value['architecture'] ?? '', 'architecture'),
    os: text(value['os'] ?? '', 'os'),
    ...(value['os.features'] === undefined ? {} : { 'os.features': texts(value['os.features'], 'os.features') }),
    ...(config === undefined || config === null ? {} : { config: record(config, 'config') }),
    rootfs: {
      type: text(rootfs['type'] ?? 'layers', 'rootfs.type'),
      diff_ids: list(rootfs['diff_ids'] ?? [], 'rootfs.diff_ids').map((id, index) => asDigest(text(id, `rootfs.diff_ids[${index}]`), `rootfs.diff_ids[${index}]`)),
    },
    ...(history === undefined ? {} : { history: history.map((item, index) => toHistoryItem(item, `history[${index}]`)) }),
  }
}

/** A value that `JSON.parse` made → descriptor; `where` names it in errors (FORMAT_INVALID). */
export function toDescriptor(value: unknown, where: string): Descriptor {
  const item = record(value, where)
  const size = item['size']
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw wrong(`${where}.size`, 'is no byte count')
  return {
    mediaType: text(item['mediaType'], `${where}.mediaType`),
    digest: asDigest(text(item['digest'], `${where}.digest`), `${where}.digest`),
    size,
    ...(item['urls'] === undefined || item['urls'] === null ? {} : { urls: texts(item['urls'], `${where}.urls`) }),
    ...annotationsOf(item, where),
    ...optionalTexts(item, ['data', 'artifactType'], where),
    ...(item['platform'] === undefined || item['platform'] === null ? {} : { platform: toPlatform(item['platform'], `${where}.platform`) }),
  }
}

function toPlatform(value: unknown, where: string): Platform {
  const item = record(value, where)
  return {
    architecture: text(item['architecture'] ?? '', `${where}.architecture`),
    os: text(item['os'] ?? '', `${where}.os`),
    ...optionalTexts(item, ['os.version', 'variant'], where),
    ...(item['os.features'] === undefined || item['os.features'] === null ? {} : { 'os.features': texts(item['os.features'], `${where}.os.features`) }),
  }
}

function toHistoryItem(value: unknown, where: string): HistoryItem {
  const item = record(value, where)
  const empty = item['empty_layer']
  if (empty !== undefined && typeof empty !== 'boolean') throw wrong(`${where}.empty_layer`, 'is not true or false')
  return {
    ...optionalTexts(item, ['created', 'created_by', 'author', 'comment'], where),
    ...(empty === undefined ? {} : { empty_layer: empty }),
  }
}

function parseJson(json: Uint8Array | string, what: string): unknown {
  const source = typeof json === 'string' ? json : Buffer.from(json.buffer, json.byteOffset, json.length).toString('utf8')
  try {
    return JSON.parse(source)
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new CodedError('FORMAT_INVALID', `${what} is not JSON`, {}, { cause })
  }
}

function schemaVersion2(value: Readonly<Record<string, unknown>>, what: string): void {
  if (value['schemaVersion'] !== 2) throw wrong(`${what}.schemaVersion`, 'is not 2')
}

// One document that two readers could take for two things is an attack (CVE-2021-41190), whatever its media type says.
function unambiguous(value: Readonly<Record<string, unknown>>, what: string, alien: readonly string[]): void {
  for (const key of alien) {
    if (value[key] !== undefined && value[key] !== null) throw wrong(`${what}.${key}`, `does not belong into a document of this kind`)
  }
}

function annotationsOf(value: Readonly<Record<string, unknown>>, where: string): { annotations?: Annotations } {
  const annotations = value['annotations']
  if (annotations === undefined || annotations === null) return {}
  const pairs = Object.entries(record(annotations, `${where}.annotations`))
  return { annotations: Object.fromEntries(pairs.map(([key, item]) => [key, text(item, `${where}.annotations["${foreignText(key, 80)}"]`)])) }
}

function optionalTexts<K extends string>(value: Readonly<Record<string, unknown>>, keys: readonly K[], where: string): { [N in K]?: string } {
  const found: { [N in K]?: string } = {}
  for (const key of keys) {
    const item = value[key]
    if (item !== undefined && item !== null) found[key] = text(item, `${where}.${key}`)
  }
  return found
}

function record(value: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'is not an object')
  // SAFETY: a non-null, non-array object out of JSON.parse has string keys and unknown values.
  return value as Readonly<Record<string, unknown>>
}

function list(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(where, 'is not a list')
  if (value.length > MAX_DESCRIPTORS) throw wrong(where, `has more than ${MAX_DESCRIPTORS} items`)
  return value
}

function texts(value: unknown, where: string): readonly string[] {
  return list(value, where).map((item, index) => text(item, `${where}[${index}]`))
}

function text(value: unknown, where: string): string {
  if (typeof value !== 'string') throw wrong(where, 'is not a string')
  return value
}

function wrong(where: string, why: string): CodedError {
  return new CodedError('FORMAT_INVALID', `${where} ${why}`)
}

// Images made by test code: layers from entries, in any packing, as an OCI layout on disk.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { encodeEntry, endBlocks, padding, type WritableEntry } from '../../src/format/tar/writer.ts'

/** An entry of a test layer; what is left out is plain: root's, mode 0644 or 0755, one fixed time. */
export type TestEntry = Partial<WritableEntry> & { readonly path: string; readonly data?: string | Uint8Array }

export interface TestLayer { readonly bytes: Uint8Array; readonly diffId: string; readonly mediaType: string }

export interface Made { readonly mediaType: string; readonly digest: string; readonly size: number }

export function sha256(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** A tar of `entries`. */
export function tarOf(entries: readonly TestEntry[]): Buffer {
  const parts: Uint8Array[] = []
  for (const { data = '', ...entry } of entries) {
    const type = entry.type ?? (entry.link === undefined ? 'file' : 'symlink')
    const bytes = Buffer.from(data)
    const size = type === 'file' ? bytes.length : 0
    parts.push(encodeEntry({ mode: type === 'directory' ? 0o755 : 0o644, uid: 0, gid: 0, mtime: 1_700_000_000, ...entry, type, size }))
    if (size > 0) parts.push(bytes, padding(size))
  }
  return Buffer.concat([...parts, endBlocks()])
}

/** A gzip layer. */
export function gzipLayer(entries: readonly TestEntry[], mediaType: string = MEDIA_TYPE.ociLayerGzip): TestLayer {
  const tar = tarOf(entries)
  return { bytes: gzipSync(tar), diffId: sha256(tar), mediaType }
}

/** Writes blobs, manifests and names into a layout. */
export class LayoutMaker {
  readonly directory: string
  readonly #named: (Made & { annotations: Record<string, string> })[] = []

  constructor(directory: string) {
    this.directory = directory
    fs.mkdirSync(path.join(directory, 'blobs/sha256'), { recursive: true })
    fs.writeFileSync(path.join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
    this.#writeIndex()
  }

  blob(bytes: Uint8Array | string, mediaType: string): Made {
    const content = Buffer.from(bytes)
    const digest = sha256(content)
    fs.writeFileSync(path.join(this.directory, 'blobs/sha256', digest.slice(7)), content)
    return { mediaType, digest, size: content.length }
  }

  json(value: unknown, mediaType: string): Made {
    return this.blob(JSON.stringify(value), mediaType)
  }

  /** An image manifest; `more` goes into the manifest, `config` into the config. */
  image(layers: readonly TestLayer[], { config = {}, more = {}, docker = false }: { config?: Record<string, unknown>; more?: Record<string, unknown>; docker?: boolean } = {}): Made {
    const made = layers.map((layer) => this.blob(layer.bytes, layer.mediaType))
    const configBlob = this.json({
      created: '2024-01-02T03:04:05Z', architecture: 'amd64', os: 'linux', config: { Env: ['PATH=/bin'] },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map((_, at) => ({ created: '2024-01-02T03:04:05Z', created_by: `step ${at}` })), ...config,
    }, docker ? MEDIA_TYPE.dockerConfig : MEDIA_TYPE.ociConfig)
    const mediaType = docker ? MEDIA_TYPE.dockerManifest : MEDIA_TYPE.ociManifest
    return this.json({ schemaVersion: 2, mediaType, config: configBlob, layers: made, ...more }, mediaType)
  }

  index(manifests: readonly (Made & { platform?: unknown; annotations?: unknown })[], mediaType: string = MEDIA_TYPE.ociIndex): Made {
    return this.json({ schemaVersion: 2, mediaType, manifests }, mediaType)
  }

  /** Gives `made` a name in index.json. */
  name(made: Made, name: string): void {
    this.#named.push({ ...made, annotations: { 'org.opencontainers.image.ref.name': name } })
    this.#writeIndex()
  }

  #writeIndex(): void {
    fs.writeFileSync(path.join(this.directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: this.#named }))
  }
}

/** Manifests, indexes and configs as tests look at them: a test fails by itself where a field is missing. */
export interface TestDocument {
  readonly mediaType: string
  readonly config: Made
  readonly layers: readonly (Made & { readonly annotations?: Record<string, string> })[]
  readonly manifests: readonly (Made & { readonly platform?: unknown; readonly artifactType?: string })[]
  readonly annotations?: Record<string, string>
  readonly subject?: unknown
  readonly rootfs: { readonly diff_ids: readonly string[] }
  readonly history: readonly unknown[]
}

/** A JSON blob of a layout. */
export function readJson(layout: string, digest: string): TestDocument {
  return JSON.parse(fs.readFileSync(path.join(layout, 'blobs/sha256', digest.slice(7)), 'utf8'))
}

/** Digest of what `name` is in a layout. */
export function named(layout: string, name: string): Made {
  const index = JSON.parse(fs.readFileSync(path.join(layout, 'index.json'), 'utf8'))
  const found = index.manifests.find((one: { annotations?: Record<string, string> }) => one.annotations?.['org.opencontainers.image.ref.name'] === name)
  if (!found) throw new Error(`${layout} has no ${name}`)
  return found
}

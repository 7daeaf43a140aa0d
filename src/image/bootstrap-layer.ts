// The layer that holds the bootstrap: a small gzip tar, made here and read here. SPEC: spec-surface.md C.3 "bootstrap tar".

import { createHash } from 'node:crypto'
import { CodedError } from '../core/errors.ts'
import { GiB } from '../core/units.ts'
import type { Descriptor } from '../format/oci/descriptor.ts'
import type { Digest } from '../format/oci/digest.ts'
import { TarReader } from '../format/tar/reader.ts'
import { encodeEntry, endBlocks, padding } from '../format/tar/writer.ts'
import { gzipPieces } from '../native/gzip.ts'
import { digestOf, type ImageSource } from '../registry/index.ts'
import { BOOTSTRAP_PATH } from './nydus-image.ts'
import { openLayer } from './open-layer.ts'

export interface BootstrapLayer {
  /** The gzip tar. */
  readonly bytes: Uint8Array
  readonly digest: Digest
  readonly diffId: Digest
}

/** One file for `image/` of the tar. */
export interface LayerMember { readonly name: string; readonly contents: Uint8Array }

/** LIMIT: what a bootstrap may claim before it is read into memory; four million files. */
const MAX_BOOTSTRAP_SIZE = GiB
/** COMPAT: the level of Go's default writer; the bootstrap is a small part of an image. */
const GZIP_LEVEL = 6

/** Packs the bootstrap, and the chunk information of the blobs beside it so that a snapshotter need not fetch it from each blob. */
export async function packBootstrapLayer(bootstrap: Uint8Array, chunkInfos: readonly LayerMember[], { signal }: { signal: AbortSignal }): Promise<BootstrapLayer> {
  const parts = [...tarParts([{ name: 'image.boot', contents: bootstrap }, ...chunkInfos])]
  const packed = gzipPieces(parts, { level: GZIP_LEVEL, signal })
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part) // while threads compress
  const bytes = await packed
  return { bytes, digest: digestOf(bytes), diffId: `sha256:${hash.digest('hex')}` }
}

function* tarParts(members: readonly LayerMember[]): Generator<Uint8Array> {
  const owner = { uid: 0, gid: 0, mtime: 0 }
  yield encodeEntry({ path: 'image', type: 'directory', mode: 0o755, ...owner })
  for (const { name, contents } of members) {
    yield encodeEntry({ path: `image/${name}`, type: 'file', mode: 0o444, size: contents.length, ...owner })
    yield contents
    yield padding(contents.length)
  }
  yield endBlocks()
}

/**
 * The bootstrap out of the layer of an image, with layer and diffID verified. IMAGE_INVALID when it has none; else the codes of `openLayer` and
 * of the tar reader.
 */
export async function readBootstrap(source: ImageSource, layer: Descriptor, { diffId, signal }: { diffId: Digest | undefined; signal: AbortSignal }): Promise<Uint8Array> {
  const reader = new TarReader()
  let found: Buffer | undefined
  let fill = 0
  let inside = false
  const take = (atEnd: boolean) => {
    for (let event = reader.next(); event !== undefined; event = reader.next()) {
      if (event.type === 'entry') {
        inside = event.entry.path === BOOTSTRAP_PATH && event.entry.type === 'file'
        if (!inside) continue
        if (event.entry.size > MAX_BOOTSTRAP_SIZE) throw new CodedError('IMAGE_INVALID', `${source.name}: a bootstrap of ${event.entry.size} bytes`)
        found = Buffer.alloc(0)
        fill = 0
      } else if (event.type === 'data' && inside) {
        // grows with what arrives, not with what is claimed
        found = grown(found!, fill + event.bytes.length)
        found.set(event.bytes, fill)
        fill += event.bytes.length
      } else if (event.type === 'end' && atEnd) {
        return
      }
    }
  }
  for await (const piece of openLayer(source, { layer, diffId, signal })) {
    reader.push(piece)
    take(false)
  }
  reader.finish()
  take(true)
  if (found === undefined) throw new CodedError('IMAGE_INVALID', `${source.name}: layer ${layer.digest} has no ${BOOTSTRAP_PATH}`)
  return found.subarray(0, fill)
}

function grown(buffer: Buffer, length: number): Buffer {
  if (length <= buffer.length) return buffer
  const larger = Buffer.allocUnsafe(Math.max(length, buffer.length * 2, 1 << 20))
  larger.set(buffer)
  return larger
}

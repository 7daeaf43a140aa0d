// A whole image from a source to a target, converted. SPEC: spec-surface.md C.2 to C.4.
//
//   source ─► plan ─► layers (side by side): pull ─► verify ─► unpack ─► verify ─► pack ─► work directory ─► push ─┐
//                       └─ all packed ─► merge ─► bootstrap layer ─► push ─► config ─► push ─► manifest ◄───────────┘ ─► index ─► tag, last

import { publish } from '../core/diagnostics.ts'
import type { Descriptor } from '../format/oci/descriptor.ts'
import { type Digest, splitDigest } from '../format/oci/digest.ts'
import type { Platform } from '../format/oci/platform.ts'
import { copyBlob, digestOf, type ImageSource, type ImageTarget } from '../registry/index.ts'
import { type LayerMember, packBootstrapLayer } from './bootstrap-layer.ts'
import type { BuildCache } from './build-cache.ts'
import type { BuilderOptions, LayerBuilder, MergedImage, MergeLayer, PackSettings } from './builder.ts'
import type { ChunkDictionary } from './chunk-dictionary.ts'
import { type ConvertedLayer, LayerConverter, type LayerOrigin, type Parallelism } from './layer-converter.ts'
import { inGroup, type TaskGroup } from './limiter.ts'
import { machineLimits } from '../native/machine.ts'
import { readPackedLayer } from './packed-layer.ts'
import { type Plan, planImage, type PlannedImage, type Skipped } from './plan.ts'
import { blobDescriptor, bootstrapDescriptor, convertedIndex, type Document, EMPTY_LAYER, type MergedEntry, mergedIndex, nydusConfig, nydusManifest, twinConfig, twinManifest } from './rewrite.ts'
import type { WorkDirectory } from './work-directory.ts'
import { MiB } from '../core/units.ts'

export interface ConvertOptions {
  readonly source: ImageSource
  readonly target: ImageTarget
  readonly builder: LayerBuilder
  readonly settings: PackSettings
  readonly work: WorkDirectory
  readonly platforms: readonly Platform[] | 'all'
  /** The source's name in annotations. */
  readonly sourceReference: string
  /** Docker media types become OCI ones. */
  readonly oci: boolean
  /** An index with the OCI images beside the Nydus ones. */
  readonly mergePlatform: boolean
  /** Name the source manifest as subject. */
  readonly referrer: boolean
  readonly cache?: BuildCache | undefined
  readonly dictionary?: ChunkDictionary | undefined
  readonly signal: AbortSignal
}

/** One layer in a report; sizes are bytes as stored. */
export interface LayerReport { readonly source: Digest; readonly sourceSize: number; readonly blob: Digest; readonly blobSize: number; readonly origin: LayerOrigin }

export interface ConvertResult {
  /** `copied`: the image was Nydus already. */
  readonly action: 'converted' | 'copied'
  readonly sourceDigest: Digest
  readonly target: Descriptor
  /** Manifests, configs and layers of everything that was taken, and of everything that was made. */
  readonly sourceSize: number
  readonly targetSize: number
  readonly layers: readonly LayerReport[]
  readonly skipped: readonly Skipped[]
  readonly elapsedMs: { readonly pull: number; readonly convert: number; readonly push: number }
}

const FS_VERSION = '6'
/** COMPAT: upstream moves five layers at a time. */
const MAX_PARALLEL = 5
/** What one layer in work needs: pieces of the pull, the decoder's window, chunks being compressed, the blob's pieces. */
const MEMORY_PER_LAYER = 96 * MiB

/** Converts. The target's name shows the old image or the complete new one, whenever it ends. IMAGE_UNSUPPORTED, IMAGE_INVALID; REGISTRY_*, TAR_*, BUILD_*. */
export async function convertImage(options: ConvertOptions): Promise<ConvertResult> {
  const { source, target, cache, signal } = options
  const started = performance.now()
  const plan = await planImage(source, { platforms: options.platforms, signal })
  step('resolved', `${source.name} is ${plan.resolved.descriptor.digest}`, started)
  for (const { digest, platform, message } of plan.skipped) publish('image:warning:raised', { message: `left out ${digest}${platform === '' ? '' : ` (${platform})`}: ${message}` })
  const planned = performance.now()

  const layers = new Map<Digest, ConvertedLayer>()
  await using scratch = await options.work.scratch()
  await using converter = new LayerConverter({ ...options, scratch: scratch.path, cache, parallel: parallelism() })
  const made = await inGroup(signal, (group) => Promise.all(plan.images.map((image) => group.start(() => (
    image.action === 'copy' ? copyImage(options, image, group.signal) : convertOne(options, image, { group, converter, layers, scratch: scratch.path })
  )))))
  const converted = performance.now()

  if (cache !== undefined) await updateCache(cache, made, { converter, signal })
  const { descriptor, size: indexSize } = await publishImage(options, plan, made)
  await target.finish({ signal })
  const pushed = performance.now()
  const result: ConvertResult = {
    action: plan.images.every(({ action }) => action === 'copy') ? 'copied' : 'converted',
    sourceDigest: plan.resolved.descriptor.digest,
    target: descriptor,
    sourceSize: sum(made.map(({ sourceSize }) => sourceSize)) + (plan.index === undefined ? 0 : plan.resolved.descriptor.size),
    targetSize: sum(made.map(({ targetSize }) => targetSize)) + indexSize,
    layers: [...layers.values()].map(({ source: { digest, size }, blob, origin }) => ({ source: digest, sourceSize: size, blob: blob.digest, blobSize: blob.size, origin })),
    skipped: plan.skipped,
    elapsedMs: { pull: planned - started, convert: converted - planned, push: pushed - converted },
  }
  reportSizes(result)
  return result
}

/** One image of the target, before it has a name. */
interface MadeImage {
  readonly image: PlannedImage
  readonly document: Document
  readonly layers: readonly ConvertedLayer[]
  readonly sourceSize: number
  readonly targetSize: number
}

/** An image that is Nydus already goes over as it is. */
async function copyImage({ source, target }: ConvertOptions, image: PlannedImage, signal: AbortSignal): Promise<MadeImage> {
  for (const descriptor of [...image.manifest.layers, image.manifest.config]) await copyBlob(source, target, { descriptor, signal })
  const size = sizeOf(image)
  return { image, document: { bytes: image.bytes, mediaType: image.descriptor.mediaType }, layers: [], sourceSize: size, targetSize: size }
}

async function convertOne(options: ConvertOptions, image: PlannedImage, { group, converter, layers: known, scratch }: { group: TaskGroup; converter: LayerConverter; layers: Map<Digest, ConvertedLayer>; scratch: string }): Promise<MadeImage> {
  const { target, builder } = options
  const signal = group.signal
  const { manifest, config, descriptor } = image
  const started = startOrder(manifest).map((at) => [at, converter.convert(manifest.layers[at]!, config.rootfs.diff_ids[at]!, group)] as const)
  const layers = await Promise.all(started.sort(([a], [b]) => a - b).map(([, layer]) => layer))
  for (const layer of layers) known.set(layer.source.digest, layer)

  const merging = performance.now()
  step('packed', `${layers.length} layers`, merging)
  const merged = await merge(layers, { builder, settings: options.settings, scratch, threads: converter.threads, signal })
  const bootstrap = await packBootstrapLayer(merged.bootstrap, merged.chunkInfos, { signal })
  step('merged', `${layers.length} layers into a bootstrap of ${merged.bootstrap.length} bytes`, merging)
  await pushBytes(target, bootstrap, { signal })

  const own = new Set(layers.map(({ blob }) => blob.digest))
  const fromDictionary: Descriptor[] = []
  for (const id of merged.blobs) {
    if (own.has(`sha256:${id}`) || options.dictionary === undefined) continue
    fromDictionary.push(await options.dictionary.copyBlobTo(target, id, { signal }))
  }
  const blobs = [...layers.map(({ blob }) => blob), ...fromDictionary].map(blobDescriptor)
  const oci = options.oci || descriptor.mediaType.startsWith('application/vnd.oci.')
  const bootstrapLayer = bootstrapDescriptor({ digest: bootstrap.digest, size: bootstrap.bytes.length }, { oci, fsVersion: FS_VERSION })
  const configBytes = nydusConfig(config, [...blobs.map(({ digest }) => digest), bootstrap.diffId])
  const configDigest = digestOf(configBytes)
  await pushBytes(target, { bytes: configBytes, digest: configDigest }, { signal })
  await Promise.all(layers.map(({ pushed }) => pushed))
  const document = nydusManifest({
    source: { descriptor, manifest, reference: options.sourceReference },
    config: { digest: configDigest, size: configBytes.length },
    layers: [...blobs, bootstrapLayer],
    fsVersion: FS_VERSION, builderVersion: builder.version, oci: options.oci, besideOci: options.mergePlatform, referrer: options.referrer,
  })
  const targetSize = sum([...blobs, bootstrapLayer].map(({ size }) => size)) + configBytes.length + document.bytes.length
  return { image, document, layers, sourceSize: sizeOf(image), targetSize }
}

/** Positions of the layers, largest first: what takes longest must not begin last. */
function startOrder({ layers }: PlannedImage['manifest']): number[] {
  return layers.map((_, at) => at).sort((a, b) => layers[b]!.size - layers[a]!.size || a - b)
}

interface MergeParts extends BuilderOptions { readonly builder: LayerBuilder }

/** The bootstraps of the layers are in memory here and no longer. */
async function merge(layers: readonly ConvertedLayer[], { builder, ...options }: MergeParts): Promise<MergedImage & { readonly chunkInfos: readonly LayerMember[] }> {
  const inputs: MergeLayer[] = []
  const files = new Map<string, Uint8Array>() // a blob that occurs twice has one file
  for (const { blob, open } of layers) {
    const { bootstrap, chunkInfo } = await open()
    inputs.push({ digest: blob.digest, size: blob.size, bootstrap })
    if (chunkInfo !== undefined) files.set(`${splitDigest(blob.digest).hex}.blob.meta`, chunkInfo)
  }
  const merged = await builder.merge(inputs.length > 0 ? inputs : [await emptyLayer({ builder, ...options })], options)
  return { ...merged, chunkInfos: [...files].map(([name, contents]) => ({ name, contents })) }
}

/** An image without layers is a root directory with nothing in it: the bootstrap of an empty tar, whose blob nobody needs. */
async function emptyLayer({ builder, ...options }: MergeParts): Promise<MergeLayer> {
  const pieces: Uint8Array[] = []
  const tar = (async function* () { yield new Uint8Array(1024) })()
  await builder.pack(tar, { ...options, sink: { write: async (chunk) => { pieces.push(Uint8Array.from(chunk)) } } })
  const bytes = Buffer.concat(pieces)
  const { bootstrap } = await readPackedLayer(bytes.length, async (offset, length) => bytes.subarray(offset, offset + length))
  return { digest: digestOf(bytes), size: bytes.length, bootstrap }
}

/** Manifests, index and, last of all, the name. */
async function publishImage(options: ConvertOptions, plan: Plan, made: readonly MadeImage[]): Promise<{ descriptor: Descriptor; size: number }> {
  const { target, signal } = options
  const [only] = made
  if (options.mergePlatform) {
    const entries: MergedEntry[] = []
    for (const one of made) entries.push(await publishTwin(options, one))
    const index = mergedIndex(entries)
    return { descriptor: await target.pushManifest(index.bytes, { mediaType: index.mediaType, final: true, signal }), size: index.bytes.length }
  }
  if (made.length === 1 && only !== undefined) {
    return { descriptor: await target.pushManifest(only.document.bytes, { mediaType: only.document.mediaType, final: true, signal }), size: 0 }
  }
  const manifests: Descriptor[] = []
  for (const { document, image } of made) {
    const { mediaType, digest, size } = await target.pushManifest(document.bytes, { mediaType: document.mediaType, final: false, signal })
    manifests.push({ ...withoutData(image.descriptor), mediaType, digest, size, platform: image.platform })
  }
  const index = convertedIndex({ mediaType: plan.resolved.descriptor.mediaType, index: plan.index! }, manifests, { oci: options.oci })
  return { descriptor: await target.pushManifest(index.bytes, { mediaType: index.mediaType, final: true, signal }), size: index.bytes.length }
}

/** The Nydus manifest and its OCI twin, with everything that the twin names. */
async function publishTwin({ source, target, signal }: ConvertOptions, { document, image }: MadeImage): Promise<MergedEntry> {
  const nydus = await target.pushManifest(document.bytes, { mediaType: document.mediaType, final: false, signal })
  for (const descriptor of image.manifest.layers) await copyBlob(source, target, { descriptor, signal })
  await pushBytes(target, { bytes: EMPTY_LAYER, digest: digestOf(EMPTY_LAYER) }, { signal })
  const config = twinConfig(image)
  const digest = digestOf(config)
  await pushBytes(target, { bytes: config, digest }, { signal })
  const twin = twinManifest(image, { digest, size: config.length })
  const pushed = await target.pushManifest(twin.bytes, { mediaType: twin.mediaType, final: false, signal })
  return { platform: image.platform, oci: { ...withoutData(image.descriptor), ...pushed }, sourceDigest: image.descriptor.digest, nydus }
}

async function updateCache(cache: BuildCache, made: readonly MadeImage[], { converter, signal }: { converter: LayerConverter; signal: AbortSignal }): Promise<void> {
  for (const { image, layers } of made) {
    const records = layers.map(({ source, blob }) => ({ source: source.digest, blob }))
    if (records.length > 0) await cache.update(records, { platform: image.platform, signal, send: (blob, target) => converter.sendTo(target, blob, { signal }) })
  }
}

async function pushBytes(target: ImageTarget, { bytes, digest }: { bytes: Uint8Array; digest: Digest }, { signal }: { signal: AbortSignal }): Promise<void> {
  await target.pushBlob({ digest, size: bytes.length }, async function* ({ offset, length }) { yield bytes.subarray(offset, offset + length) }, { signal })
}

/** How many layers at a time: by processors and memory of the cgroup. Two at least, so that one waits for the network while the other computes. */
function parallelism(): Parallelism {
  const { processors, memory } = machineLimits()
  const packs = Math.min(MAX_PARALLEL, Math.max(2, processors), Math.max(1, Math.floor(memory / 2 / MEMORY_PER_LAYER)))
  return { packs, threads: Math.ceil(processors / packs), pushes: MAX_PARALLEL }
}

/** A target that is larger than its source is no secret. Batches make it smaller; zstd -19 sources and tiny images cannot be beaten. */
function reportSizes({ action, sourceSize, targetSize }: ConvertResult): void {
  if (action === 'copied') return
  const percent = sourceSize === 0 ? 0 : (targetSize / sourceSize) * 100
  publish('image:step:done', { step: 'sizes', detail: `source ${sourceSize} bytes, target ${targetSize} bytes (${percent.toFixed(1)} %)`, durationMs: 0 })
  if (targetSize > sourceSize) {
    publish('image:warning:raised', { message: `the target is larger than the source: ${targetSize} bytes instead of ${sourceSize} (+${(percent - 100).toFixed(1)} %)` })
  }
}

function step(name: string, detail: string, started: number): void {
  publish('image:step:done', { step: name, detail, durationMs: performance.now() - started })
}

function withoutData({ data: _data, ...descriptor }: Descriptor): Descriptor {
  return descriptor
}

function sizeOf({ bytes, manifest }: PlannedImage): number {
  return bytes.length + manifest.config.size + sum(manifest.layers.map(({ size }) => size))
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

// convert(): names in, an image out. Opens the places, the work directory and the caches, and sees that they are closed again.

import { CodedError } from '../core/errors.ts'
import { formatReference, parseReference, withDefaultTag } from '../format/oci/reference.ts'
import { hostPlatform, parsePlatform, type Platform } from '../format/oci/platform.ts'
import { BuildCache, ChunkDictionary, convertImage, type ConvertResult, type LayerBuilder, type PackSettings, WorkDirectory } from '../image/index.ts'
import { digestOf, type ImageSource, type Location, openSource, openTarget, parseLocation, type RegistryOptions } from '../registry/index.ts'
import { externalBuilder } from './external-builder.ts'
import { inProcessBuilder } from './in-process-builder.ts'
import { type ProgressListener, withProgress } from './progress.ts'

export type { ConvertResult } from '../image/index.ts'

/** Everything but the two names is optional. */
export interface ConvertRequest {
  /** Where to read: `docker://REFERENCE` or a bare reference, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`. */
  readonly source: string
  /** Where to write; the same forms. */
  readonly target: string
  readonly sourceRegistry?: RegistryOptions | undefined
  readonly targetRegistry?: RegistryOptions | undefined
  /** Finished layers wait here; removed at the end if it did not exist. Default `./tmp`. */
  readonly workDirectory?: string | undefined
  /** The source's name in the target's annotations. Default: the source's reference, or the image's name in its archive. */
  readonly sourceReference?: string | undefined
  /** `os/architecture[/variant]` each, or `all`. Default: the one of this machine. */
  readonly platforms?: readonly string[] | 'all' | undefined
  readonly compressor?: PackSettings['compressor'] | undefined
  /** Bytes. Default 1 MiB. */
  readonly chunkSize?: number | undefined
  /** Bytes; 0: none. Default 1 MiB when this package builds, 0 with `nydusImage`. */
  readonly batchSize?: number | undefined
  readonly alignedChunk?: boolean | undefined
  /** Absolute paths, one a line. Default `/`. */
  readonly prefetchPatterns?: string | undefined
  readonly oci?: boolean | undefined
  readonly mergePlatform?: boolean | undefined
  readonly referrer?: boolean | undefined
  /** Path of an upstream-compatible nydus-image to build with, instead of this package. */
  readonly nydusImage?: string | undefined
  readonly chunkDict?: { readonly reference: string; readonly registry?: RegistryOptions | undefined } | undefined
  readonly buildCache?: { readonly reference: string; readonly version?: string | undefined; readonly maxRecords?: number | undefined; readonly registry?: RegistryOptions | undefined } | undefined
  /** Bytes a PATCH when pushing; 0: each blob in one request. */
  readonly pushPieceSize?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
}

const DEFAULT_CHUNK_SIZE = 0x10_0000
const DEFAULT_BATCH_SIZE = 0x10_0000
/** COMPAT: upstream's bound, from the layers that docker's graph drivers could show. */
const MAX_CACHE_RECORDS = 200

/**
 * Converts one image (or the platforms of an index) to Nydus. The target's name is written last: it shows the old image or the complete new one.
 * Codes: IMAGE_UNSUPPORTED (context.reason says which kind), IMAGE_INVALID, REGISTRY_*, BUILD_*, TAR_*, CONFIG_INVALID; the signal's reason.
 */
export async function convert(request: ConvertRequest): Promise<ConvertResult> {
  return withProgress(request.onProgress, () => run(request, request.signal ?? new AbortController().signal))
}

async function run(request: ConvertRequest, signal: AbortSignal): Promise<ConvertResult> {
  const builder: LayerBuilder = request.nydusImage === undefined ? inProcessBuilder() : await externalBuilder(request.nydusImage, { signal })
  const chunkSize = request.chunkSize ?? DEFAULT_CHUNK_SIZE
  const location = parseLocation(request.source)
  const platforms = platformsOf(request.platforms)

  await using work = await WorkDirectory.open(request.workDirectory ?? 'tmp')
  const sourceOptions = { ...request.sourceRegistry, workDirectory: work.path, signal }
  await using source = await openSource(location, sourceOptions)
  await using dictionary = request.chunkDict === undefined ? undefined : await openDictionary(request.chunkDict, work, signal)
  const settings: PackSettings = {
    compressor: request.compressor ?? 'zstd', chunkSize,
    batchSize: request.batchSize ?? (request.nydusImage === undefined ? Math.min(DEFAULT_BATCH_SIZE, chunkSize) : 0),
    alignedChunk: request.alignedChunk ?? false, prefetchPatterns: request.prefetchPatterns ?? '/',
    chunkDict: dictionary?.value,
  }
  await using cache = request.buildCache === undefined ? undefined : await openCache(request.buildCache, { settings, builder, workDirectory: work.path, signal })
  await using target = await openTarget(request.target, { ...request.targetRegistry, pieceSize: request.pushPieceSize, workDirectory: work.path, signal })
  const result = await convertImage({
    source, target, builder, settings, work, platforms, cache, dictionary: dictionary?.value, signal,
    sourceReference: request.sourceReference ?? referenceName(location),
    oci: request.oci ?? false, mergePlatform: request.mergePlatform ?? false, referrer: request.referrer ?? false,
  })
  await work.clear()
  return result
}

/** COMPAT: upstream writes the full reference. A path would say where somebody's files were, and make the same image differ. */
function referenceName(location: Location): string {
  return location.kind === 'registry' ? formatReference(withDefaultTag(location.reference)) : location.image ?? ''
}

function platformsOf(platforms: ConvertRequest['platforms']): readonly Platform[] | 'all' {
  if (platforms === 'all') return 'all'
  return platforms === undefined || platforms.length === 0 ? [hostPlatform()] : platforms.map((text) => parsePlatform(text))
}

interface OpenDictionary extends AsyncDisposable { readonly value: ChunkDictionary }

async function openDictionary({ reference, registry }: NonNullable<ConvertRequest['chunkDict']>, work: WorkDirectory, signal: AbortSignal): Promise<OpenDictionary> {
  const source: ImageSource = await openSource(reference, { ...registry, signal })
  try {
    const value = await ChunkDictionary.pull(source, { directory: work.path, signal })
    return { value, [Symbol.asyncDispose]: async () => {
      await value[Symbol.asyncDispose]()
      await source[Symbol.asyncDispose]()
    } }
  } catch (error) {
    await source[Symbol.asyncDispose]()
    throw error
  }
}

async function openCache(options: NonNullable<ConvertRequest['buildCache']>, { settings, builder, workDirectory, signal }: { settings: PackSettings; builder: LayerBuilder; workDirectory: string; signal: AbortSignal }): Promise<BuildCache> {
  const maxRecords = options.maxRecords ?? MAX_CACHE_RECORDS
  if (!Number.isInteger(maxRecords) || maxRecords < 1 || maxRecords > MAX_CACHE_RECORDS) throw new CodedError('CONFIG_INVALID', `build cache: the number of records is ${maxRecords}, not 1 to ${MAX_CACHE_RECORDS}`)
  const reference = withDefaultTag(parseReference(options.reference))
  const { compressor, chunkSize, batchSize, alignedChunk, prefetchPatterns, chunkDict } = settings
  return BuildCache.open({
    openSource: () => openSource({ kind: 'registry', reference }, { ...options.registry, signal }),
    openTarget: () => openTarget({ kind: 'registry', reference }, { ...options.registry, workDirectory, signal }),
    version: options.version ?? 'v1', maxRecords,
    settings: digestOf(Buffer.from(JSON.stringify([builder.version, compressor, chunkSize, batchSize, alignedChunk, prefetchPatterns, chunkDict?.digest ?? '']))),
  }, { signal })
}

// `nydus-image create`. SPEC: spec-surface.md A.1.

import path from 'node:path'
import type { Command } from 'commander'
import { type BlobSink, type CreateOptions, buildOutput, createImage, directorySink, fileSink, WHITEOUT_SPECS } from '../../build/index.ts'
import { CodedError } from '../../core/errors.ts'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { DIGESTERS } from '../../format/rafs-v6/blob-table.ts'
import { parseSize, refuseTogether, usageError } from '../command-line.ts'
import { BUILDER_ARENAS, keepMallocLean } from '../lean-heap.ts'
import { untilSignal } from '../signals.ts'
import { buildInfo } from '../version.ts'
import { BlobCacheSink } from './blob-cache-sink.ts'
import { logTo, readBootstrap, readChunkDict, readPrefetch, writeBootstrap, writeOutputJson } from './io.ts'
import { kindOfSource, sourceStream } from './source-stream.ts'

interface CreateFlags {
  readonly type: string
  readonly sourceType?: string
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly blob?: string
  readonly externalBlob?: string
  readonly blobInlineMeta?: boolean
  readonly inlineBootstrap?: boolean
  readonly blobId?: string
  readonly blobOffset: string
  readonly chunkSize?: string
  readonly batchSize: string
  readonly compressor: 'none' | 'lz4_block' | 'zstd'
  readonly digester: string
  readonly fsVersion: string
  readonly features?: string
  readonly chunkDict?: string
  readonly parentBootstrap?: string
  readonly repeatable?: boolean
  readonly whiteoutSpec: string
  readonly prefetchPolicy: string
  readonly outputJson?: string
  readonly encrypt?: boolean
  readonly blobCacheDir?: string
  readonly attributes?: string
}

const LATER_TYPES = ['estargz-rafs', 'estargz-ref', 'estargztoc-ref', 'targz-ref', 'tar-tarfs', 'stargz_index']
const CACHE_DIR_CONFLICTS = ['tar-tarfs', 'estargztoc-ref', 'estargz-rafs', 'estargz-ref', 'stargz_index']
const DEFAULT_CHUNK_SIZE = 0x10_0000

/** Runs the build and writes blob, bootstrap and JSON. Errors of `createImage`, and BUILD_INVALID_OPTION. */
export async function create(source: string, command: Command): Promise<void> {
  const flags = command.opts<CreateFlags>()
  keepMallocLean(BUILDER_ARENAS)
  const type = flags.sourceType ?? flags.type
  const inlineMeta = flags.blobInlineMeta === true || flags.inlineBootstrap === true
  checkUsage(command, flags, { type, inlineMeta })
  refuseLater(flags, type)

  const say = logTo(command)
  const kind = await kindOfSource(source)
  const isDirectory = type === 'dir-rafs' || type === 'directory'
  if (isDirectory && kind !== 'directory') throw new CodedError('BUILD_SOURCE', `source ${source} must be a directory for conversion type '${type}'`, { source })
  if (!isDirectory && kind === 'directory') throw new CodedError('BUILD_SOURCE', `source ${source} must be a file, FIFO or character device for conversion type '${type}'`, { source })

  const options = {
    compressor: flags.blobCacheDir === undefined ? flags.compressor : 'none',
    digester: DIGESTERS.find((one) => one === flags.digester) ?? 'blake3',
    chunkSize: flags.chunkSize === undefined ? DEFAULT_CHUNK_SIZE : parseSize(flags.chunkSize, 'chunk-size'),
    batchSize: parseSize(flags.batchSize, 'batch-size'),
    inlineMeta, blobToc: hasBlobToc(flags.features),
    explicitUidGid: flags.repeatable !== true,
    whiteoutSpec: WHITEOUT_SPECS.find((one) => one === flags.whiteoutSpec) ?? 'oci',
    prefetch: readPrefetch(flags.prefetchPolicy),
    chunkDict: readChunkDict(flags.chunkDict),
    parent: flags.parentBootstrap === undefined ? undefined : readBootstrap(flags.parentBootstrap),
    blobId: flags.blobId,
  } satisfies Omit<CreateOptions, 'source' | 'sink' | 'signal'>
  const cache = flags.blobCacheDir === undefined ? undefined : new BlobCacheSink(flags.blobCacheDir)
  const sink = cache ?? await blobSink(flags)
  const result = await untilSignal((signal) => createImage({
    ...options, sink, signal, source: isDirectory ? { type: 'directory', path: source } : {
      // One layer of several, as converters pack it: its hard links may lead into a layer below, which the merge finds.
      type: 'tar', stream: sourceStream(source, { signal }), allowForeignLinks: flags.whiteoutSpec === 'none',
    },
  }))
  if (cache !== undefined && result.blob !== undefined) await cache.finish(BootstrapView.open(result.bootstrap), result.blob)

  const bootstrap = inlineMeta ? '' : writeBootstrap(result.bootstrap, { file: flags.bootstrap, directory: flags.blobDir })
  let externalBootstrap = ''
  if (result.externalBootstrap !== undefined) {
    const { dir, name } = flags.bootstrap === undefined ? { ...path.parse(bootstrap), name: path.basename(bootstrap) } : path.parse(bootstrap)
    externalBootstrap = writeBootstrap(result.externalBootstrap, { file: path.join(dir, `${name}.external`) })
  }
  writeOutputJson(flags.outputJson, buildOutput({ version: outputVersion(), bootstrap, externalBootstrap, externalBlobs: result.externalBlobs, blobs: result.blobs, compressor: options.compressor, trace: result.trace }))
  say(`successfully built RAFS filesystem: \nmeta blob path: ${bootstrap || '<none>'}\ndata blob size: 0x${(result.blob?.size ?? 0).toString(16)}\ndata blobs: ${JSON.stringify(result.blobs)}`)
}

/** `version` of the JSON result: what `git describe` and the commit are to upstream. */
export function outputVersion(): string {
  const { version, gitCommit } = buildInfo()
  return `${version}-${gitCommit}`
}

function checkUsage(command: Command, flags: CreateFlags, { type, inlineMeta }: { readonly type: string; readonly inlineMeta: boolean }): void {
  for (const other of ['blobDir', 'blob', 'blobInlineMeta', 'inlineBootstrap', 'compressor']) refuseTogether(command, other, 'blobCacheDir')
  for (const [first, second] of [['bootstrap', 'blobInlineMeta'], ['bootstrap', 'inlineBootstrap'], ['blobId', 'blobInlineMeta'], ['blobId', 'inlineBootstrap']] as const) refuseTogether(command, first, second)
  if (flags.bootstrap === undefined && flags.blobDir === undefined && !inlineMeta) usageError(command, 'the following required arguments were not provided:\n  --bootstrap <bootstrap>')
  if (flags.blobCacheDir !== undefined && CACHE_DIR_CONFLICTS.includes(type)) {
    throw new CodedError('BUILD_INVALID_OPTION', `conversion type \`${type}\` conflicts with \`--blob-cache-dir\``, { type })
  }
}

/** What upstream has and this version does not, refused by name. */
function refuseLater(flags: CreateFlags, type: string): void {
  const refuse = (what: string): never => { throw new CodedError('FORMAT_UNSUPPORTED', `${what} is not in this version`, { what }) }
  if (LATER_TYPES.includes(type)) refuse(`conversion type '${type}'`)
  if (flags.fsVersion !== '6') refuse(`--fs-version ${flags.fsVersion} (RAFS v5)`)
  if (flags.encrypt === true) refuse('--encrypt')
  if (flags.attributes !== undefined) refuse('--attributes')
  if (flags.externalBlob !== undefined) refuse('--external-blob')
  if (flags.blobOffset !== '0') refuse('--blob-offset')
}

function hasBlobToc(features: string | undefined): boolean {
  const words = (features ?? '').split(/[\s,]+/).filter((word) => word !== '')
  const unknown = words.find((word) => word !== 'blob-toc')
  if (unknown !== undefined) throw new CodedError('BUILD_INVALID_OPTION', `--features: unknown feature '${unknown}', possible: blob-toc`, { feature: unknown })
  return words.length > 0
}

async function blobSink(flags: CreateFlags): Promise<BlobSink> {
  if (flags.blob !== undefined) return fileSink(flags.blob)
  if (flags.blobDir !== undefined) return directorySink(flags.blobDir)
  throw new CodedError('BUILD_INVALID_OPTION', 'all of --blob, --blob-dir and --blob-cache-dir are missing')
}

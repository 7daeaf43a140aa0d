// `nydus-image merge`. SPEC: spec-surface.md A.2.

import type { Command } from 'commander'
import { buildOutput, type MergeLayer, mergeLayers } from '../../build/index.ts'
import { CodedError } from '../../core/errors.ts'
import { usageError } from '../command-line.ts'
import { outputVersion } from './create.ts'
import { logTo, readBootstrap, readChunkDict, readPrefetch, writeBootstrap, writeOutputJson } from './io.ts'

interface MergeFlags {
  readonly parentBootstrap?: string
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly chunkDict?: string
  readonly prefetchPolicy: string
  readonly outputJson?: string
  readonly blobDigests?: string
  readonly originalBlobIds?: string
  readonly blobSizes?: string
  readonly blobTocDigests?: string
  readonly blobTocSizes?: string
  readonly config?: string
}

/** Merges `sources`, lowest first. BUILD_INCONSISTENT (exit 2) when they do not fit, BUILD_INVALID_OPTION for lists of another length. */
export async function merge(sources: readonly string[], command: Command): Promise<void> {
  const flags = command.opts<MergeFlags>()
  if (flags.bootstrap === undefined && flags.blobDir === undefined) usageError(command, 'the following required arguments were not provided:\n  --bootstrap <bootstrap>')
  const say = logTo(command)
  const list = (text: string | undefined, what: string) => items(text, { what, count: sources.length })
  const digests = list(flags.blobDigests, 'blob digest')
  const ids = list(flags.originalBlobIds, 'original blob id')
  const sizes = list(flags.blobSizes, 'blob size')
  const tocDigests = list(flags.blobTocDigests, 'toc digest')
  const tocSizes = list(flags.blobTocSizes, 'toc size')
  const prefetch = readPrefetch(flags.prefetchPolicy)
  const layers = sources.map((source, i): MergeLayer => ({
    ...readBootstrap(source),
    blobDigest: hexOf(digests?.[i], 'blob-digests'), originalBlobId: ids?.[i], blobSize: numberOf(sizes?.[i], 'blob-sizes'),
    tocDigest: hexOf(tocDigests?.[i], 'blob-toc-digests'), tocSize: numberOf(tocSizes?.[i], 'blob-toc-sizes'),
  }))
  const result = await mergeLayers(layers, {
    parent: flags.parentBootstrap === undefined ? undefined : readBootstrap(flags.parentBootstrap),
    chunkDict: readChunkDict(flags.chunkDict), prefetch, blobsAccessible: flags.config !== undefined,
  })
  const bootstrap = writeBootstrap(result.bootstrap, { file: flags.bootstrap, directory: flags.blobDir })
  writeOutputJson(flags.outputJson, buildOutput({ version: outputVersion(), bootstrap, blobs: result.blobs, compressor: result.compressor, trace: result.trace }))
  say(`successfully built RAFS filesystem: \nmeta blob path: ${bootstrap}\ndata blobs: ${JSON.stringify(result.blobs)}`)
}

function items(text: string | undefined, { what, count }: { readonly what: string; readonly count: number }): string[] | undefined {
  if (text === undefined) return undefined
  const list = text.split(',').map((item) => item.trim())
  if (list.length !== count) throw new CodedError('BUILD_INVALID_OPTION', `number of ${what} entries ${list.length} doesn't match number of sources ${count}`, { entries: list.length, sources: count })
  return list
}

function numberOf(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw new CodedError('BUILD_INVALID_OPTION', `--${option}: '${text}' is no number of bytes`, { option })
  return value
}

function hexOf(text: string | undefined, option: string): string | undefined {
  if (text !== undefined && !/^[0-9a-f]{64}$/.test(text)) throw new CodedError('BUILD_INVALID_OPTION', `--${option}: '${text}' is no sha256 digest (64 hexadecimal digits)`, { option })
  return text
}

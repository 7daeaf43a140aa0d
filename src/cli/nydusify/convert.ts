// `nydusify convert`: flags → library, progress → terminal, outcome → --output-json.

import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { CodedError } from '../../core/errors.ts'
import { formatReference, parseReference, withDefaultTag } from '../../format/oci/reference.ts'
import { refusal } from '../../image/index.ts'
import { convert, type ConvertRequest, type ConvertResult } from '../../library/convert.ts'
import { BUILDER_ARENAS, collectGarbage, keepMallocLean } from '../lean-heap.ts'
import { exitCodeOf } from './failure.ts'
import { usageError, type Values } from './flags.ts'
import { log } from './log.ts'
import { outcomeOf } from './outcome.ts'
import { showProgress } from './progress.ts'
import { durationMs, hostOf, platformsOf, registryOf } from './registry-flags.ts'
import { untilSignal } from '../signals.ts'

/** COMPAT: Go's default for a doubling delay; upstream waits the same time before each attempt. */
const MAX_PUSH_DELAY_MS = 60_000

/** Runs the command; resolves with 0. What was refused and what failed is thrown, after --output-json is written. */
export async function convertFromCommandLine(values: Values): Promise<number> {
  const started = performance.now()
  keepMallocLean(BUILDER_ARENAS)
  const outputJson = values.optional('output-json')
  let result: ConvertResult | undefined
  let failure: unknown
  try {
    result = await untilSignal(async (signal) => {
      const request = requestOf(values)
      const display = showProgress()
      try {
        return await convert({ ...request, signal, onProgress: (event) => {
          if (event.type === 'step' && event.step === 'packed') collectGarbage() // before the merge
          display.hear(event)
        } })
      } finally {
        display.close()
      }
    })
  } catch (error) {
    failure = error
  }
  if (outputJson !== undefined) {
    const outcome = outcomeOf({ values, result, failure, exitCode: failure === undefined ? 0 : exitCodeOf(failure), elapsedMs: performance.now() - started })
    await writeFile(outputJson, `${JSON.stringify(outcome, undefined, 2)}\n`)
  }
  if (result === undefined) throw failure
  log.info(`${result.action} ${values.text('source')} (${result.sourceDigest}) to ${values.optional('target') ?? targetOf(values)} (${result.target.digest})`)
  return 0
}

function requestOf(values: Values): ConvertRequest {
  refuseLater(values)
  const target = targetOf(values)
  const source = values.text('source')
  const sourceArchive = values.optional('source-archive')
  const targetArchive = values.optional('target-archive')
  const plainHttp = values.isOn('plain-http')
  const sourceHost = sourceArchive === undefined ? hostOf(source) : undefined
  // The target asks for plain HTTP; a source elsewhere may still have HTTPS, which is then preferred.
  const samePlace = sourceHost !== undefined && sourceHost === hostOf(target)
  const sourceRegistry = registryOf({ insecure: values.isOn('source-insecure') || plainHttp, plainHttp: plainHttp && samePlace })
  const retries = values.isSet('push-retry-count') || values.isSet('push-retry-delay')
  const delayMs = durationMs(values.text('push-retry-delay'), 'push-retry-delay')
  const retry = retries ? { retry: { attempts: Math.max(1, values.number('push-retry-count') + 1), baseMs: delayMs, maxMs: Math.max(delayMs, MAX_PUSH_DELAY_MS) } } : {}
  const targetRegistry = { ...registryOf({ insecure: values.isOn('target-insecure'), plainHttp }), ...retry }
  return {
    source: sourceArchive === undefined ? source : `oci-archive:${sourceArchive}`,
    target: targetArchive === undefined ? target : `oci-archive:${targetArchive}:${target}`,
    sourceRegistry, targetRegistry,
    ...(sourceArchive === undefined ? {} : { sourceReference: formatReference(withDefaultTag(parseReference(source))) }),
    workDirectory: values.text('work-dir'),
    platforms: platformsOf(values),
    compressor: compressorOf(values.text('compressor')),
    chunkSize: sizeOf(values.text('fs-chunk-size'), 'fs-chunk-size'),
    batchSize: values.optional('batch-size') === undefined ? undefined : sizeOf(values.text('batch-size'), 'batch-size'),
    alignedChunk: values.isOn('fs-align-chunk') || values.isOn('backend-aligned-chunk'),
    prefetchPatterns: prefetchOf(values),
    oci: values.isOn('oci') && !values.isOn('docker-v2-format'),
    mergePlatform: values.isOn('merge-platform'),
    referrer: values.isOn('with-referrer'),
    nydusImage: values.optional('nydus-image'),
    chunkDict: dictionaryOf(values, { plainHttp }),
    buildCache: cacheOf(values, target, { plainHttp }),
  }
}

function refuseLater(values: Values): void {
  if (!['5', '6'].includes(values.text('fs-version'))) throw usageError('--fs-version should be one of [5 6]')
  for (const [isAsked, what] of [
    [values.text('fs-version') === '5', '--fs-version 5'],
    [values.isOn('oci-ref'), '--oci-ref'],
    [values.isOn('reverse'), '--reverse'],
    [values.isSet('backend-type') || values.isSet('backend-config') || values.isSet('backend-config-file'), '--backend-type'],
    [values.isSet('source-backend-type'), '--source-backend-type'],
  ] as const) {
    if (isAsked) throw refusal('not-here', what)
  }
}

/** `--target`, or the source's name with `--target-suffix`. */
function targetOf(values: Values): string {
  const target = values.optional('target')
  const suffix = values.optional('target-suffix')
  if (target !== undefined && suffix !== undefined) throw usageError('--target conflicts with --target-suffix')
  if (target !== undefined) return target
  if (suffix === undefined) throw usageError('--target or --target-suffix is required')
  const source = withDefaultTag(parseReference(values.text('source').replace(/^docker:\/\//, '')))
  if (source.digest !== undefined) throw usageError('unsupported digested image reference with --target-suffix: name the target by --target')
  return formatReference({ ...source, tag: `${source.tag}${suffix}` })
}

function prefetchOf(values: Values): string {
  const directory = values.optional('prefetch-dir')
  if (!values.isOn('prefetch-patterns')) return directory ?? '/'
  if (directory !== undefined) throw usageError('--prefetch-dir conflicts with --prefetch-patterns')
  return readFileSync(0, 'utf8').trim() || '/'
}

function compressorOf(text: string): 'none' | 'lz4_block' | 'zstd' {
  if (text === 'none' || text === 'lz4_block' || text === 'zstd') return text
  throw usageError(`--compressor should be one of [none lz4_block zstd], not "${text}"`)
}

function sizeOf(text: string, flag: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw usageError(`--${flag}: "${text}" is no decimal or 0x-hexadecimal number`)
  return value
}

function dictionaryOf(values: Values, { plainHttp }: { plainHttp: boolean }): ConvertRequest['chunkDict'] {
  const text = values.optional('chunk-dict')
  if (text === undefined) return undefined
  const [, format, kind, reference] = /^([^:]+):([^:]+):(.+)$/s.exec(text) ?? []
  if (format !== 'bootstrap' || reference === undefined) throw usageError(`--chunk-dict: write bootstrap:registry:REFERENCE, not "${text}"`)
  if (kind !== 'registry') throw new CodedError('CONFIG_INVALID', `--chunk-dict ${text}: blobs of a dictionary become layers of the target, so its image must be named: bootstrap:registry:REFERENCE (also oci:DIR:NAME)`)
  return { reference, registry: registryOf({ insecure: values.isOn('chunk-dict-insecure') || plainHttp }) }
}

function cacheOf(values: Values, target: string, { plainHttp }: { plainHttp: boolean }): ConvertRequest['buildCache'] {
  const reference = values.optional('build-cache')
  const tag = values.optional('build-cache-tag')
  if (reference !== undefined && tag !== undefined) throw usageError('--build-cache conflicts with --build-cache-tag')
  if (reference === undefined && tag === undefined) return undefined
  const maxRecords = values.number('build-cache-max-records')
  if (maxRecords < 1) throw usageError('--build-cache-max-records should be greater than 0')
  if (maxRecords > 200) throw usageError('--build-cache-max-records should not be greater than 200')
  return {
    reference: reference ?? formatReference({ ...parseReference(target), tag: tag! }),
    version: values.text('build-cache-version'), maxRecords,
    registry: registryOf({ insecure: values.isOn('build-cache-insecure') || values.isOn('target-insecure'), plainHttp }),
  }
}

// What --output-json says. The first five keys are upstream's (times in nanoseconds); the others are ours and are there on failure, too.

import { isCoded } from '../../core/errors.ts'
import { refusalOf } from '../../image/index.ts'
import type { ConvertResult } from '../../library/convert.ts'
import type { Values } from './flags.ts'
import { Interrupted } from '../signals.ts'

export interface Outcome {
  readonly SourceImageSize: number
  readonly TargetImageSize: number
  readonly SourcePullElapsed: number
  readonly ConversionElapsed: number
  readonly TargetPushElapsed: number
  readonly Outcome: 'converted' | 'copied' | 'refused' | 'interrupted' | 'failed'
  readonly ExitCode: number
  readonly Source: string
  readonly SourceDigest?: string
  readonly TargetDigest?: string
  readonly Layers?: readonly { readonly SourceDigest: string; readonly SourceSize: number; readonly BlobDigest: string; readonly BlobSize: number; readonly Origin: string }[]
  readonly Skipped?: readonly { readonly Digest: string; readonly Platform: string; readonly Reason: string; readonly Message: string }[]
  readonly Elapsed: number
  /** Error code (docs/errors.md), reason of a refusal, message. */
  readonly Code?: string
  readonly Reason?: string
  readonly Message?: string
}

const NS_PER_MS = 1e6

/** The object that `--output-json` writes, of a success (`result`) or of a failure. */
export function outcomeOf({ values, result, failure, exitCode, elapsedMs }: { values: Values; result: ConvertResult | undefined; failure: unknown; exitCode: number; elapsedMs: number }): Outcome {
  const ns = (ms: number) => Math.round(ms * NS_PER_MS)
  const common = { ExitCode: exitCode, Source: values.text('source'), Elapsed: ns(elapsedMs) }
  if (result !== undefined) {
    return {
      SourceImageSize: result.sourceSize, TargetImageSize: result.targetSize,
      SourcePullElapsed: ns(result.elapsedMs.pull), ConversionElapsed: ns(result.elapsedMs.convert), TargetPushElapsed: ns(result.elapsedMs.push),
      Outcome: result.action, ...common, SourceDigest: result.sourceDigest, TargetDigest: result.target.digest,
      Layers: result.layers.map(({ source, sourceSize, blob, blobSize, origin }) => ({ SourceDigest: source, SourceSize: sourceSize, BlobDigest: blob, BlobSize: blobSize, Origin: origin })),
      Skipped: result.skipped.map(({ digest, platform, reason, message }) => ({ Digest: digest, Platform: platform, Reason: reason, Message: message })),
    }
  }
  const reason = refusalOf(failure)
  return {
    SourceImageSize: 0, TargetImageSize: 0, SourcePullElapsed: 0, ConversionElapsed: 0, TargetPushElapsed: 0,
    Outcome: reason !== undefined ? 'refused' : failure instanceof Interrupted ? 'interrupted' : 'failed', ...common,
    ...(isCoded(failure) ? { Code: failure.code } : {}), ...(reason === undefined ? {} : { Reason: reason }),
    Message: failure instanceof Error ? failure.message : String(failure),
  }
}

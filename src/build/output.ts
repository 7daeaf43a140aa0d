// The object that `--output-json` writes after `create` and `merge`. SPEC: spec-surface.md A.8.

import type { CompressorName } from '../format/rafs-v6/blob-table.ts'
import type { TraceOutput } from './trace.ts'

/** Keys in the order in which upstream prints them. */
export interface BuildOutput {
  readonly version: string
  /** Path of the bootstrap; '' when it is inlined. */
  readonly bootstrap: string
  /** Ids in blob table order. */
  readonly blobs: readonly string[]
  readonly external_bootstrap: string
  readonly external_blobs: readonly string[]
  readonly trace: TraceOutput
  readonly fs_version: '6'
  readonly compressor: CompressorName
}

export interface BuildOutputInput {
  readonly version: string
  readonly bootstrap: string
  readonly externalBootstrap?: string
  readonly externalBlobs?: readonly string[]
  readonly blobs: readonly string[]
  readonly compressor: CompressorName
  readonly trace: TraceOutput
}

/** Assembles it. */
export function buildOutput({ version, bootstrap, blobs, externalBootstrap = '', externalBlobs = [], trace, compressor }: BuildOutputInput): BuildOutput {
  return { version, bootstrap, blobs, external_bootstrap: externalBootstrap, external_blobs: externalBlobs, trace, fs_version: '6', compressor }
}

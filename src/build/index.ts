// What other layers may use of build/.

export { type BlobSink, directorySink, fileSink, nowhere } from './blob-sink.ts'
export { type CreateOptions, type CreateResult, type CreateSource, createImage, type NamedBootstrap, type WrittenBlob } from './create.ts'
export { exportDisk, type ExportOptions, type ExportResult } from './export/export-disk.ts'
export { type MergeLayer, type MergeOptions, type MergeResult, mergeLayers } from './merge.ts'
export { buildOutput, type BuildOutput } from './output.ts'
export { type UnpackOptions, type UnpackSource, unpackTar } from './unpack.ts'
export { WHITEOUT_SPECS, type WhiteoutSpec } from './overlay.ts'
export { type PackedLayer, type PackOptions, packLayer } from './pack-layer.ts'
export { parsePrefetchPatterns, PREFETCH_POLICIES, type PrefetchOptions, type PrefetchPolicy } from './prefetch.ts'
export type { SourceDigests, TarOptions } from './tar-source.ts'
export { defaultThreads } from './threads.ts'
export type { TraceOutput } from './trace.ts'

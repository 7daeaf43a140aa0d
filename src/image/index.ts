// Whole-image flows: everything other layers may import.

export { BuildCache, type BuildCacheOptions } from './build-cache.ts'
export type { BlobSink, LayerBuilder, MergedImage, MergeLayer, PackSettings } from './builder.ts'
export { ChunkDictionary } from './chunk-dictionary.ts'
export { convertImage, type ConvertOptions, type ConvertResult, type LayerReport } from './convert.ts'
export { machineLimits, type MachineLimits } from './machine.ts'
export { REFUSALS, refusal, refusalOf, type RefusalReason } from './refusal.ts'
export { WorkDirectory } from './work-directory.ts'

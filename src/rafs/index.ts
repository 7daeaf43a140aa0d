// What other layers import of rafs/.

export { BlobMap } from './blob-map.ts'
export { type OpenBootstrap, openBootstrap, type SharedBootstrap } from './bootstrap-source.ts'
export { openConfiguredImage, prefetchOf, type ConfiguredImageOptions } from './configured.ts'
export { diskLayout, type DiskLayout, type DiskPart } from './disk-layout.ts'
export { type DiskPiece, FlatDisk, fromCache } from './flat-disk.ts'
export { openSharedImage, RafsImage, type ImageReplica, type OpenImageOptions, type SharedImage } from './image.ts'
export { piecesOf, type ExtentSink, type Piece } from './locate.ts'
export { prefetchImage, type PrefetchOptions } from './prefetch.ts'
export { prefetchItem, traceLine, type PrefetchItem } from './prefetch-list.ts'
export { fillBlob, fillMap, isComplete, isFilled, openSharedBlob, readBlob, type IsReady, type SharedBlob } from './read-blob.ts'
export { resolvePath } from './resolve.ts'

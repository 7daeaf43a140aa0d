// Every structure at rest, by the page of docs/format that describes it. scripts/generate-docs.mjs prints them, and one test judges them all.

import type { Row, Struct } from '../core/struct.ts'
import { batchContext, blobMetaHeader, chunkInfoV1, chunkInfoV2 } from './blob/chunk-info.ts'
import { gnuTarHeader, tocEntry } from './blob/toc.ts'
import { chunkIndex, compactInode, dirent, extendedInode, xattrEntry, xattrHeader } from './erofs/inode.ts'
import { deviceSlot, superBlock } from './erofs/super-block.ts'
import { gptEntry, gptHeader } from './gpt/table.ts'
import { blobEntry } from './rafs-v6/blob-table.ts'
import { chunkEntry } from './rafs-v6/chunk-table.ts'
import { prefetchEntry, superBlockExt } from './rafs-v6/super-block-ext.ts'

/** Page name -> its structures, in the order in which a reader meets them. */
export const STRUCT_PAGES: Readonly<Record<'bootstrap' | 'blob' | 'disk', readonly Struct<readonly Row[]>[]>> = {
  bootstrap: [superBlock, superBlockExt, deviceSlot, blobEntry, prefetchEntry, compactInode, extendedInode, xattrHeader, xattrEntry, dirent, chunkIndex, chunkEntry],
  disk: [gptHeader, gptEntry],
  blob: [chunkInfoV1, chunkInfoV2, batchContext, blobMetaHeader, gnuTarHeader, tocEntry],
}

// Where the digests of a dm-verity hash tree lie: format 1, no salt, sha256, no superblock, hash blocks of 4096 bytes.
// SPEC: Linux Documentation/admin-guide/device-mapper/verity.rst; spec-rafs.md D "export --block".
//
//   root = sha256(first hash block)      level N  (one block)      lies first
//                                        ...
//                                        level 1  one digest for each data block, lies last

export const VERITY_HASH_BLOCK_SIZE = 4096
export const VERITY_DIGEST_SIZE = 32
/** Digests in one hash block. */
export const VERITY_DIGESTS_PER_BLOCK = VERITY_HASH_BLOCK_SIZE / VERITY_DIGEST_SIZE

/** One level of hash blocks. */
export interface VerityLevel {
  /** Bytes from the start of the tree. */
  readonly offset: number
  /** Hash blocks. */
  readonly blocks: number
  /** Digests that stand for something; what is left of the last block is filler. */
  readonly digests: number
}

/** The levels of a tree over `dataBlocks` blocks, level 1 first; none for a single block, whose digest is the root. */
export function verityLevels(dataBlocks: number): VerityLevel[] {
  const levels: { blocks: number; digests: number }[] = []
  for (let digests = dataBlocks; digests > 1;) {
    const blocks = Math.ceil(digests / VERITY_DIGESTS_PER_BLOCK)
    levels.push({ blocks, digests })
    digests = blocks
  }
  const below = (i: number) => levels.slice(i + 1).reduce((sum, { blocks }) => sum + blocks, 0)
  return levels.map((level, i) => ({ ...level, offset: below(i) * VERITY_HASH_BLOCK_SIZE }))
}

/** Bytes of the whole tree. */
export function verityTreeSize(levels: readonly VerityLevel[]): number {
  return levels.reduce((sum, { blocks }) => sum + blocks, 0) * VERITY_HASH_BLOCK_SIZE
}

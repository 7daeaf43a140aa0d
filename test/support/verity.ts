// A verifier of dm-verity hash trees that shares no code with the writer: from the root down, block by block, as a kernel would.

import { createHash } from 'node:crypto'

export interface VerityTable { readonly blockSize: number; readonly blocks: number; readonly hashOffset: number; readonly root: string }

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The table in the line that `nydus-image export --verity` prints. Throws for another line. */
export function parseVerityLine(line: string): VerityTable {
  // SPEC: the pattern of nydus-snapshotter pkg/tarfs/tarfs.go
  const match = /^dm-verity options: --no-superblock --format=1 -s "" --hash=sha256 --data-block-size=(\d+) --hash-block-size=4096 --data-blocks (\d+) --hash-offset (\d+) ([0-9a-f]{64})\n$/.exec(line)
  if (match === null) throw new Error(`no verity line: ${line}`)
  return { blockSize: Number(match[1]), blocks: Number(match[2]), hashOffset: Number(match[3]), root: match[4]! }
}

/** The first block of `disk` that the tree does not vouch for, or undefined. */
export function checkDisk(disk: Buffer, { blockSize, blocks, hashOffset, root }: VerityTable): string | undefined {
  const dataBlock = (i: number) => disk.subarray(i * blockSize, (i + 1) * blockSize)
  if (blocks === 1) return sha256(dataBlock(0)) === root ? undefined : 'data block 0'
  const widths: number[] = [] // hash blocks of each level, the top first
  for (let width = Math.ceil(blocks / 128); ; width = Math.ceil(width / 128)) {
    widths.unshift(width)
    if (width === 1) break
  }
  let trusted = [root]
  let at = hashOffset
  for (const [depth, width] of widths.entries()) {
    const next: string[] = []
    for (let i = 0; i < width; i++, at += 4096) {
      const block = disk.subarray(at, at + 4096)
      if (block.length < 4096 || sha256(block) !== trusted[i]) return `hash block ${i} of level ${widths.length - depth}`
      for (let j = 0; j < 4096; j += 32) next.push(block.toString('hex', j, j + 32))
    }
    trusted = next
  }
  if (at !== disk.length) return `${disk.length - at} bytes behind the tree`
  // what vouches for nothing is the digest of a zero block (spec-rafs.md D)
  if (trusted.slice(blocks).some((digest) => digest !== sha256(Buffer.alloc(4096)))) return 'filler'
  for (let i = 0; i < blocks; i++) if (sha256(dataBlock(i)) !== trusted[i]) return `data block ${i}`
  return undefined
}

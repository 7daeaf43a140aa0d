import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { randomOf } from '../../../test/support/hostile.ts'
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG } from '../erofs/inode.ts'
import { BLOB_FEATURE } from './blob-table.ts'
import { BootstrapView, type Inode } from './bootstrap-view.ts'
import { ChunkStore } from './bootstrap-writer-chunks.ts'
import { ImageInode, ImageNode, pathOf, walkOrder } from './bootstrap-writer-tree.ts'
import { encodeXattrs } from './bootstrap-writer-xattr.ts'
import { type BlobDescription, type BootstrapInput, writeBootstrap } from './bootstrap-writer.ts'

const CHUNK_SIZE = 0x1000
const directory = (name: string, children: readonly ImageNode[] = []) => {
  const node = new ImageNode(name, new ImageInode(S_IFDIR | 0o755))
  if (children.length > 0) node.children = new Map(children.map((child) => [child.name, child]))
  return node
}
const blob = (chunkCount: number, overrides: Partial<BlobDescription> = {}): BlobDescription => ({
  blobId: 'b'.repeat(64), chunkSize: CHUNK_SIZE, chunkCount, compressor: 0, digester: 0, features: BLOB_FEATURE.aligned | BLOB_FEATURE.capTarToc, compressedSize: chunkCount * CHUNK_SIZE + chunkCount * 16,
  uncompressedSize: chunkCount * CHUNK_SIZE, tocSize: 0, ciCompressor: 0, ciOffset: chunkCount * CHUNK_SIZE, ciCompressedSize: chunkCount * 16, ciUncompressedSize: chunkCount * 16,
  tocDigest: new Uint8Array(32), metaDigest: new Uint8Array(32), metaSize: new Uint8Array(8), cipherIv: new Uint8Array(8), cipher: 0, ...overrides,
})

/** A file of `count` new chunks; digests that begin with `prefix` bytes alike. */
function file(name: string, chunks: ChunkStore, count: number, { prefix = 0 } = {}): ImageNode {
  const inode = new ImageInode(S_IFREG | 0o644)
  inode.size = count * CHUNK_SIZE
  const ids = Array.from({ length: count }, () => {
    const id = chunks.add()
    const digest = createHash('sha256').update(String(id)).digest().fill(0xaa, 0, prefix)
    chunks.setDigest(id, digest, 0)
    chunks.setIndex(id, id)
    chunks.setUncompressedSize(id, CHUNK_SIZE)
    chunks.setUncompressedOffset(id, id * CHUNK_SIZE)
    return id
  })
  inode.chunks = count === 1 ? ids[0]! : ids
  return new ImageNode(name, inode)
}
const write = (root: ImageNode, chunks: ChunkStore, rest: Partial<BootstrapInput> = {}) => writeBootstrap(
  { root, chunks, blobs: chunks.count === 0 ? [] : [blob(chunks.count)], chunkSize: CHUNK_SIZE, compressor: 0, digester: 0, explicitUidGid: true, ...rest })
const lookup = (view: BootstrapView, path: string): Inode => {
  let inode = view.inode(view.rootNid)
  for (const name of path.split('/').filter(Boolean)) inode = view.inode(view.lookup(inode, name)!.nid)
  return inode
}

describe('bootstrap writer', () => {
  it('writes 8192 bytes for a root alone', () => {
    const view = BootstrapView.open(write(directory(''), new ChunkStore()))
    expect([view.bytes.length, view.rootNid, [...view.entries(view.inode(view.rootNid))].map(({ name }) => name)]).toEqual([8192, 128, ['.', '..']])
  })

  it('is found again by a reader: random trees with names around ".", long names, attributes, targets and links', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = randomOf(seed)
      const chunks = new ChunkStore()
      const pick = (limit: number) => Math.floor(random() * limit)
      const name = () => ['!', '-', '+x', '.a', '...', 'z', '\xff'][pick(7)]! + 'n'.repeat(pick(200)) + pick(1e6)
      const grow = (depth: number): ImageNode[] => Array.from({ length: pick(depth === 0 ? 120 : 12) }, () => {
        const node = pick(4) === 0 && depth < 5 ? directory(name(), grow(depth + 1)) : pick(3) === 0 ? new ImageNode(name(), new ImageInode(S_IFLNK | 0o777)) : file(name(), chunks, pick(6) + 1)
        if ((node.inode.mode & S_IFLNK) === S_IFLNK) node.inode.target = 't'.repeat(1 + pick(4096))
        Object.assign(node.inode, { uid: pick(2 ** 32), gid: pick(70_000), mtime: pick(2 ** 40) - 2 ** 39, mtimeNsec: pick(1e9) })
        if (pick(5) === 0) node.inode.xattrs = encodeXattrs([['user.b', Buffer.alloc(pick(300), 7)], ['security.capability', Buffer.from([0, 10, 255])]], '')
        return node
      })
      const root = directory('', grow(0))
      const alias = walkOrder(root).nodes.find(({ inode }) => inode.isRegular)
      if (alias !== undefined) (root.children ??= new Map()).set('~alias', new ImageNode('~alias', alias.inode))
      const order = walkOrder(root)
      const view = BootstrapView.open(write(root, chunks))
      order.nodes.forEach((node, entry) => {
        const inode = lookup(view, pathOf(order, entry))
        expect([inode.mode, inode.uid, inode.gid, inode.mtime, inode.mtimeNsec]).toEqual([node.inode.mode, node.inode.uid, node.inode.gid, node.inode.mtime, node.inode.mtimeNsec])
        if (node.inode.isRegular) {
          const ids = typeof node.inode.chunks === 'number' ? [node.inode.chunks] : node.inode.chunks!
          expect(ids.map((_, i) => view.chunkAt(inode, i).index)).toEqual(ids)
          expect(inode.nlink).toBe(node.inode === alias?.inode ? 2 : 1)
        } else if (node.inode.target !== undefined) {
          expect(Buffer.from(view.readlink(inode)).toString('latin1')).toBe(node.inode.target)
        } else {
          const names = [...view.entries(inode)].map((child) => child.name)
          expect(names).toEqual(['.', '..', ...(node.children?.keys() ?? [])].sort((a, b) => (a < b ? -1 : 1)))
        }
      })
      expect(view.superBlock.inodeCount).toBe(BigInt(order.nodes.length))
    }
  })

  it('sorts the chunk table by digest, also where digests begin alike', () => {
    for (const prefix of [0, 2, 8, 28]) {
      const chunks = new ChunkStore()
      const view = BootstrapView.open(write(directory('', [file('f', chunks, 500, { prefix })]), chunks))
      const digests = Array.from({ length: view.chunkTable.count }, (_, row) => Buffer.from(view.chunkTable.digest(row)).toString('hex'))
      expect(digests).toEqual([...new Set(digests)].sort())
      expect(Array.from({ length: 500 }, (_, i) => view.chunkTable.rowOf(0, i) >= 0)).not.toContain(false)
    }
  })

  it('lists only chunks in use, with the offset in the last file that uses them', () => {
    const chunks = new ChunkStore()
    const [used, unused] = [file('a', chunks, 2), file('x', chunks, 1)]
    const ids = used.inode.chunks
    const second = new ImageNode('b', new ImageInode(S_IFREG | 0o644))
    second.inode.size = 2 * CHUNK_SIZE
    second.inode.chunks = [(ids as number[])[1]!, (ids as number[])[0]!]
    expect(unused.inode.chunks).toBe(2)
    const view = BootstrapView.open(write(directory('', [used, second]), chunks))
    expect([view.chunkTable.count, view.chunkEntry(0, 0)!.fileOffset, view.chunkEntry(0, 1)!.fileOffset]).toEqual([2, CHUNK_SIZE, 0])
  })

  it('lets the kernel see a file that is one piece as one chunk, and no other', () => {
    const chunks = new ChunkStore()
    const whole = file('whole', chunks, 5)
    const split = file('split', chunks, 3)
    ;(split.inode.chunks as number[]).reverse()
    const view = BootstrapView.open(write(directory('', [whole, split]), chunks))
    expect([lookup(view, 'whole').union, lookup(view, 'split').union]).toEqual([0x20 | 3, 0x20])
  })

  it('writes devices, the prefetch table and flags where readers look', () => {
    const chunks = new ChunkStore()
    const device = new ImageNode('dev', new ImageInode(S_IFCHR | 0o600))
    device.inode.rdev = 0x1234_0103
    const root = directory('', [device, file('f', chunks, 1)])
    const view = BootstrapView.open(write(root, chunks, { prefetch: [2, 0], explicitUidGid: false }))
    expect(lookup(view, 'dev').rdev).toBe(0x1234_0103)
    expect(view.prefetchNids()).toEqual([lookup(view, 'f').nid, view.rootNid])
    expect([view.explicitIds, view.hasXattr]).toEqual([false, false])
  })

  it.each([
    [{ chunkCount: 0 }, 'no chunks'], [{ blobId: '' }, '1 to 64'], [{ blobId: 'x'.repeat(65) }, '1 to 64'], [{ uncompressedSize: 100 }, 'uncompressed size'], [{ ciCompressedSize: 1e6 }, 'grew'],
  ])('refuses a blob that no reader would load: %o', (overrides, words) => {
    const chunks = new ChunkStore()
    const root = directory('', [file('f', chunks, 1)])
    expect(() => write(root, chunks, { blobs: [blob(1, overrides)] })).toThrow(words)
  })

  it('refuses attributes that an image cannot hold', () => {
    const encode = (name: string, size = 1) => () => encodeXattrs([[name, new Uint8Array(size)]], '/file')
    for (const [name, size] of [['btrfs.x', 1], ['system.posix_acl_access2', 1], [`user.${'k'.repeat(251)}`, 1], ['user.v', 65_536]] as const) {
      expect(encode(name, size)).toThrow(expect.objectContaining({ code: 'BUILD_SOURCE' }))
    }
    expect(encode(`user.${'k'.repeat(250)}`)).not.toThrow()
  })

  it('lays out a deep tree without a deep stack', () => {
    let node = directory('bottom')
    for (let i = 0; i < 50_000; i++) node = directory('d', [node])
    node.name = ''
    expect(BootstrapView.open(write(node, new ChunkStore())).superBlock.inodeCount).toBe(50_001n)
  })
})

// An image of three layers in which most of what an overlay must get right happens, and the tree that must come out.

import { gzipLayer, LayoutMaker, type Made, type TestEntry, type TestLayer } from './make-image.ts'

const bytes = (seed: number, length: number) => {
  const data = Buffer.alloc(length)
  for (let at = 0, x = seed; at < length; at++) {
    x = (x * 1103515245 + 12345) & 0x7fffffff
    data[at] = x >> 16
  }
  return data
}

const lower: readonly TestEntry[] = [
  { path: '', type: 'directory' },
  { path: 'bin', type: 'directory' },
  { path: 'bin/tool', mode: 0o4755, data: bytes(1, 3_000_000) },
  { path: 'bin/alias', type: 'hardlink', mode: 0o4755, link: 'bin/tool' },
  { path: 'lib', type: 'symlink', mode: 0o777, link: 'usr/lib' },
  { path: 'usr', type: 'directory' },
  { path: 'usr/lib', type: 'directory', mode: 0o750, uid: 7, gid: 8 },
  ...Array.from({ length: 60 }, (_, at): TestEntry => ({ path: `usr/lib/m${at}`, data: `module ${at}\n`.repeat(at) })),
  { path: 'opaque', type: 'directory' },
  { path: 'opaque/gone', data: 'x' },
  { path: 'change', type: 'directory' },
  { path: 'change/inner', data: 'was a directory' },
  { path: 'removed', data: 'x' },
  { path: 'caps', mode: 0o755, data: 'cap', xattrs: [['security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex')], ['user.binary', Buffer.from([0, 10, 255])]] },
  { path: 'dev', type: 'directory' },
  { path: 'dev/null', type: 'character', mode: 0o666, rdevMajor: 1, rdevMinor: 3 },
  { path: 'dev/pipe', type: 'fifo' },
]

const middle: readonly TestEntry[] = [
  { path: 'opaque', type: 'directory' },
  { path: 'opaque/.wh..wh..opq' },
  { path: 'opaque/new', data: 'new' },
  { path: '.wh.removed' },
  { path: 'change', data: 'now a file' },
  { path: 'lib/through', data: 'lands in usr/lib' },
  { path: 'b\xff\xfe', data: 'no UTF-8' },
]

const upper: readonly TestEntry[] = [
  { path: 'bin/second', type: 'hardlink', link: 'bin/tool', mode: 0o4755 },
  { path: 'usr/lib/m3', mode: 0o600, uid: 1000, gid: 1000, data: 'replaced' },
  { path: 'etc/made/by/file', data: 'parents are missing' },
]

/** `foreignLink`: with a hard link to a file of another layer, which upstream's builder cannot pack. */
export function sampleLayers({ foreignLink = true }: { foreignLink?: boolean } = {}): TestLayer[] {
  return [lower, middle, foreignLink ? upper : upper.slice(1)].map((entries) => gzipLayer(entries))
}

/** A layout with the image under the name `name`. */
export function sampleLayout(directory: string, name = 'sample'): { maker: LayoutMaker; image: Made } {
  const maker = new LayoutMaker(directory)
  const image = maker.image(sampleLayers())
  maker.name(image, name)
  return { maker, image }
}

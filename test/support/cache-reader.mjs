// A process of its own that reads all files of an image through a cache directory: BOOTSTRAP BLOBS CACHE DELAY_MS.
// Prints one line per backend request ("request OFFSET LENGTH") and per file ("file PATH SHA256").
import { createHash } from 'node:crypto'
import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { RafsImage } from '../../dist/rafs/index.js'
import { LocalfsBackend } from '../../dist/storage/index.js'

const [bootstrap, blobs, cacheDirectory, pause] = process.argv.slice(2)
const { signal } = new AbortController()
const say = (line) => writeSync(1, `${line}\n`)
const local = new LocalfsBackend({ dir: blobs })
const backend = {
  type: 'localfs',
  open(id) {
    const reader = local.open(id)
    return {
      size: (options) => reader.size(options),
      async read(offset, length, options) {
        say(`request ${offset} ${length}`)
        await delay(Number(pause))
        return reader.read(offset, length, options)
      },
    }
  },
  close: () => local.close(),
}
const image = await RafsImage.open({ bootstrap, backend, cacheDirectory, amplifyBytes: 0, signal })
const { view } = image
const walk = async (nid, name) => {
  const inode = view.inode(nid)
  if ((inode.mode & 0o170000) === 0o040000) {
    for (const entry of view.entries(inode)) if (entry.name !== '.' && entry.name !== '..') await walk(entry.nid, `${name}/${entry.name}`)
  } else if ((inode.mode & 0o170000) === 0o100000) {
    const bytes = Buffer.alloc(inode.size)
    await image.readInto(inode, 0, bytes, { signal })
    say(`file ${JSON.stringify(name)} ${createHash('sha256').update(bytes).digest('hex')}`)
  }
}
await walk(view.rootNid, '')
await image.close()

// `nydusify ls` and `cat`: an image's files without a mount, on top of the library.

import { once } from 'node:events'
import { openImage } from '../../library/open-image.ts'
import type { FileStat, ImageFiles } from '../../library/image-files.ts'
import { type ProgressEvent, withProgress } from '../../library/progress.ts'
import { usageError, type Values } from './flags.ts'
import { log } from './log.ts'
import { registryOf } from './registry-flags.ts'
import { endWithoutReader } from '../reader-gone.ts'
import { untilSignal } from '../signals.ts'

const NEWLINE = Buffer.from('\n')

/** Lists names, bytes as they are, one a line. */
export async function listFromCommandLine(values: Values): Promise<number> {
  endWithoutReader()
  const [image, start = '/', ...more] = values.positionals
  if (image === undefined || more.length > 0) throw usageError('ls: write IMAGE [PATH]')
  await withImage(values, image, async (files) => {
    const root = Buffer.from(start)
    if (!(await files.stat(root)).isDirectory()) return print(await describe(files, root, root, values.isOn('long')))
    await listDirectory(files, root, { values, prefix: Buffer.alloc(0) })
  })
  return 0
}

async function listDirectory(files: ImageFiles, directory: Buffer, { values, prefix }: { values: Values; prefix: Buffer }): Promise<void> {
  for (const name of await files.readdir(directory, { encoding: 'buffer' })) {
    const path = Buffer.concat([directory, Buffer.from('/'), name])
    const shown = Buffer.concat([prefix, name])
    await print(await describe(files, path, shown, values.isOn('long')))
    if (values.isOn('recursive') && (await files.lstat(path)).isDirectory()) await listDirectory(files, path, { values, prefix: Buffer.concat([shown, Buffer.from('/')]) })
  }
}

async function describe(files: ImageFiles, path: Buffer, shown: Buffer, isLong: boolean): Promise<Buffer> {
  if (!isLong) return shown
  const stat = await files.lstat(path)
  const target = stat.isSymbolicLink() ? Buffer.concat([Buffer.from(' -> '), await files.readlink(path, { encoding: 'buffer' })]) : Buffer.alloc(0)
  const time = new Date(stat.mtimeMs).toISOString().replace(/\.\d+Z$/, 'Z')
  return Buffer.concat([Buffer.from(`${modeText(stat)} ${stat.uid}:${stat.gid} ${String(stat.size).padStart(12)} ${time} `), shown, target])
}

function modeText({ mode }: FileStat): string {
  const type = '?pc?d?b?-?l?s'.charAt(mode >> 12) // by the four type bits: fifo 1, char 2, dir 4, block 6, file 8, link 10, socket 12
  const bit = (shift: number, special: number, letter: string) => {
    const rwx = (mode >> shift) & 7
    const execute = mode & special ? (rwx & 1 ? letter : letter.toUpperCase()) : rwx & 1 ? 'x' : '-'
    return `${rwx & 4 ? 'r' : '-'}${rwx & 2 ? 'w' : '-'}${execute}`
  }
  return `${type}${bit(6, 0o4000, 's')}${bit(3, 0o2000, 's')}${bit(0, 0o1000, 't')}`
}

/** Writes files to stdout, one after the other. */
export async function catFromCommandLine(values: Values): Promise<number> {
  endWithoutReader()
  const [image, ...paths] = values.positionals
  if (image === undefined || paths.length === 0) throw usageError('cat: write IMAGE PATH...')
  await withImage(values, image, async (files, signal) => {
    for (const path of paths) for await (const piece of files.createReadStream(path, { signal })) await write(piece)
  })
  return 0
}

async function withImage(values: Values, image: string, action: (files: ImageFiles, signal: AbortSignal) => Promise<void>): Promise<void> {
  const warn = (event: ProgressEvent): void => { if (event.type === 'warning') log.warn(event.message) }
  await untilSignal((signal) => withProgress(warn, async () => {
    await using files = await openImage(image, { registry: registryOf({ insecure: values.isOn('insecure') }), platform: values.text('platform'), signal })
    await action(files, signal)
  }))
}

function print(line: Buffer): Promise<void> {
  return write(Buffer.concat([line, NEWLINE]))
}

async function write(bytes: Uint8Array): Promise<void> {
  if (!process.stdout.write(bytes)) await once(process.stdout, 'drain')
}

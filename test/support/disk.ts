// Disk images whose partitions hold blobs, made with sfdisk.

import { execFile } from 'node:child_process'
import { open, truncate, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const SECTOR = 512
const FIRST = 2048
const LINUX_DATA = '0FC63DAF-8483-4772-8E79-3D69D8477DE4'
const BASIC_DATA = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7'

/** A GPT disk at `file` with a partition for each blob. `isShort`: of the old kind, which tell half of the id. */
export async function makeGptDisk(file: string, blobs: ReadonlyMap<string, Uint8Array>, { isShort = false } = {}): Promise<void> {
  let start = FIRST
  const places = [...blobs].map(([id, content]) => {
    const place = { id, content, start, sectors: Math.ceil(content.length / SECTOR) }
    start += Math.ceil(place.sectors / FIRST) * FIRST
    return place
  })
  const lines = places.map((place) => {
    const hex = place.id.slice(32).toUpperCase()
    const guid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
    return `start=${place.start}, size=${place.sectors}, type=${isShort ? BASIC_DATA : LINUX_DATA}, name="${place.id.slice(0, 32)}"${isShort ? '' : `, uuid=${guid}`}`
  })
  await writeFile(file, '')
  await truncate(file, (start + FIRST) * SECTOR)
  const making = run('/usr/sbin/sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', file])
  making.child.stdin!.end(`label: gpt\n${lines.join('\n')}\n`)
  await making
  const disk = await open(file, 'r+')
  try {
    for (const place of places) await disk.write(place.content, 0, place.content.length, place.start * SECTOR)
  } finally {
    await disk.close()
  }
}

/** A loop device over `file`, read-only. */
export async function loopDevice(file: string): Promise<AsyncDisposable & { readonly path: string }> {
  const { stdout } = await run('losetup', ['--find', '--show', '--read-only', file])
  const path = stdout.trim()
  return { path, async [Symbol.asyncDispose]() { await run('losetup', ['-d', path]) } }
}

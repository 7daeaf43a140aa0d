// kill -9 while images are written: afterwards there is the old image or the new one, whole, and the next run clears what was left.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseManifest } from '../../src/format/oci/descriptor.ts'
import { openSource, openTarget, readBlob } from '../../src/registry/index.ts'
import { makeImage, pushImage, temporaryDirectory } from '../support/images.ts'

const ROUNDS = 20
const signal = AbortSignal.timeout(170_000)
const DIST = path.resolve(import.meta.dirname, '../../dist/registry/index.js')

/** Writes new images to argv[2] until it is killed; says when it has begun. */
const WRITER = `
import { createHash, randomBytes } from 'node:crypto'
import { openTarget } from ${JSON.stringify(DIST)}
const signal = new AbortController().signal
const digest = (bytes) => 'sha256:' + createHash('sha256').update(bytes).digest('hex')
process.send('ready')
for (;;) {
  const target = await openTarget(process.argv[2], { signal })
  const blobs = [Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] } })), randomBytes(300_000), randomBytes(2_000_000)]
  const [config, ...layers] = blobs.map((bytes) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digest(bytes), size: bytes.length }))
  await Promise.all(blobs.map((bytes) => target.pushStream((async function* () { for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000) })(), { signal })))
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  await target.pushManifest(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers })), { mediaType, final: true, signal })
  await target.finish({ signal })
  await target[Symbol.asyncDispose]()
}
`

async function checkWhole(where: string): Promise<void> {
  await using source = await openSource(where, { signal })
  const { config, layers } = parseManifest((await source.resolve({ signal })).bytes)
  for (const blob of [config, ...layers]) await readBlob(source, blob, { signal })
}

/** Leftovers in `directory`: names that begin with a dot. */
async function leftovers(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.startsWith('.'))
}

describe.each([
  ['a layout', (directory: string) => ({ where: `oci:${directory}/l:x`, swept: `${directory}/l` })],
  ['an archive', (directory: string) => ({ where: `oci-archive:${directory}/a/a.tar:x`, swept: `${directory}/a` })],
])('%s whose writer is killed at random moments', (_, place) => {
  it('is always the old image or the new one, and clean after the next run', async () => {
    await using directory = await temporaryDirectory()
    const { where, swept } = place(directory.path)
    const script = path.join(directory.path, 'writer.mjs')
    await writeFile(script, WRITER)
    await mkdir(swept, { recursive: true })
    const writeOne = async () => {
      await using target = await openTarget(where, { signal })
      await pushImage(target, makeImage([1000]), signal)
    }
    await writeOne()
    let interrupted = 0
    for (let round = 0; round < ROUNDS; round++) {
      const child = fork(script, [where], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
      await Promise.race([once(child, 'message'), once(child, 'exit').then(([code]) => { throw new Error(`the writer ended with ${code}`) })])
      await new Promise((resolve) => { setTimeout(resolve, Math.random() * 120) })
      child.kill('SIGKILL')
      await once(child, 'exit')
      if ((await leftovers(swept)).length > 0) interrupted++
      await checkWhole(where)
    }
    expect(interrupted).toBeGreaterThan(3) // the moments were not all harmless
    await writeOne()
    expect(await leftovers(swept)).toEqual([])
    await checkWhole(where)
  })
})

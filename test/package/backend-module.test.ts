// The backend of docs/backends.md: compiled as a user would, through the conformance suite, and under a mount.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { backendSuite } from '../conformance/backend.ts'
import type { BlobBackend } from '../../src/storage/index.ts'
import { ROOT, temporary } from '../image/support.ts'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { Scratch, startNydusd } from '../support/nydusd.ts'

const work = temporary('backend-module')
afterAll(() => work[Symbol.dispose]())

/** The page's backend, compiled in a folder where the built checkout is installed under its name. */
function compiled(): string {
  const app = work.at('app')
  fs.mkdirSync(path.join(app, 'node_modules/@types'), { recursive: true })
  fs.symlinkSync(ROOT, path.join(app, 'node_modules/nydus-ts'))
  for (const name of ['@types/node', 'undici-types']) fs.symlinkSync(path.join(ROOT, 'node_modules', name), path.join(app, 'node_modules', name))
  fs.writeFileSync(path.join(app, 'package.json'), JSON.stringify({ type: 'module' }))
  fs.copyFileSync(path.join(import.meta.dirname, 'consumer/tsconfig.json'), path.join(app, 'tsconfig.json'))
  const code = /```ts\n(.*?)```/s.exec(fs.readFileSync(path.join(ROOT, 'docs/backends.md'), 'utf8'))![1]!
  fs.writeFileSync(path.join(app, 'consumer.ts'), code)
  const { stdout, stderr, status } = spawnSync(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', app], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`docs/backends.md does not compile:\n${stdout}${stderr}`)
  return path.join(app, 'out/consumer.js')
}

const file = compiled()

backendSuite('the backend of docs/backends.md', async (blobs) => {
  const directory = work.at('blobs')
  fs.mkdirSync(directory)
  for (const [id, content] of blobs) fs.writeFileSync(path.join(directory, id), content)
  const { createBackend } = (await import(pathToFileURL(file).href)) as { createBackend(config: object): BlobBackend }
  return { backend: createBackend({ directory }) }
})

describe('nydusd', () => {
  const configuration = (scratch: Scratch, module: object): string[] => {
    fs.writeFileSync(path.join(scratch.path, 'config.json'), JSON.stringify({ version: 2, backend: { type: 'module', module }, cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } } }))
    return ['--bootstrap', path.join(VECTORS, 'v6-rich-chunk64k/image.boot'), '--config', path.join(scratch.path, 'config.json')]
  }

  it('serves an image through it', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, configuration(scratch, { path: file, config: { directory: path.join(VECTORS, 'blobs') } }))
    const files = expectOfCase('v6-rich-chunk64k')!.filter(({ type, path: name }) => type === 'reg' && /^[\x20-\x7e]*$/.test(name))
    expect(files.length).toBeGreaterThan(5)
    for (const { path: name, sha256 } of files) expect(createHash('sha256').update(fs.readFileSync(scratch.mountpoint + name)).digest('hex'), name).toBe(sha256)
    expect((await daemon.ask('GET', '/api/v1/metrics/backend')).body).toMatchObject({ backend_type: 'folder', read_errors: 0 })
  })

  it('says what is wrong with a module that is none', async () => {
    using scratch = new Scratch()
    for (const [module, message] of [['/nonexistent.js', /cannot be loaded/], [path.join(ROOT, 'dist/core/units.js'), /exports no createBackend/], ['relative.js', /must be absolute/]] as const) {
      await expect(startNydusd(scratch, configuration(scratch, { path: module }))).rejects.toThrow(message)
    }
  })
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { blobOf, contentOf, makeImage, pushImage, temporaryDirectory } from '../../../test/support/images.ts'
import { collect } from '../content.ts'
import { openSource, openTarget } from '../index.ts'
import { Spool } from '../spool.ts'
import { withFileLock } from './file-lock.ts'
import { LayoutStore } from './layout-store.ts'
import { splitName } from './names.ts'
import { sweepTempFiles, TempFile } from './temp-file.ts'

const signal = AbortSignal.timeout(30_000)

async function layout(use: (directory: string) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory()
  await use(path.join(directory.path, 'layout'))
}

async function write(directory: string, name: string, sizes: readonly number[] = [1000]): Promise<ReturnType<typeof makeImage>> {
  const image = makeImage(sizes)
  await using target = await openTarget(`oci:${directory}:${name}`, { signal })
  await pushImage(target, image, signal)
  return image
}

async function digestAt(where: string): Promise<string> {
  await using source = await openSource(where, { signal })
  return (await source.resolve({ signal })).descriptor.digest
}

describe('a layout', () => {
  it('holds many images by name, by digest, and by their tag alone where that is clear', () => layout(async (directory) => {
    const one = await write(directory, 'app:v1')
    const two = await write(directory, 'other:v2')
    expect(await digestAt(`oci:${directory}:app:v1`)).toBe(one.manifest.descriptor.digest)
    expect(await digestAt(`oci:${directory}:v2`)).toBe(two.manifest.descriptor.digest)
    expect(await digestAt(`oci:${directory}@${one.manifest.descriptor.digest}`)).toBe(one.manifest.descriptor.digest)
    await expect(digestAt(`oci:${directory}`)).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND', message: expect.stringContaining('app:v1, other:v2') })
    await write(directory, 'app:v2')
    await expect(digestAt(`oci:${directory}:v2`)).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
  }))

  it('replaces what had the name, and needs no name when there is one image', () => layout(async (directory) => {
    await write(directory, 'latest')
    const { manifest } = await write(directory, 'latest')
    expect(await digestAt(`oci:${directory}`)).toBe(manifest.descriptor.digest)
  }))

  it('shows nothing of an image whose manifest was not published', () => layout(async (directory) => {
    const old = await write(directory, 'latest')
    const image = makeImage([1000])
    {
      await using target = await openTarget(`oci:${directory}:latest`, { signal })
      for (const { descriptor, bytes } of image.layers) await target.pushBlob(descriptor, contentOf(bytes), { signal })
      await target.pushManifest(image.manifest.bytes, { mediaType: image.manifest.descriptor.mediaType, final: false, signal })
    }
    expect(await digestAt(`oci:${directory}:latest`)).toBe(old.manifest.descriptor.digest)
  }))

  it('never shows a blob that is not what its name says', () => layout(async (directory) => {
    await using target = await openTarget(`oci:${directory}`, { signal })
    const { descriptor, bytes } = blobOf(Buffer.alloc(5000, 1), 'x/y')
    await expect(target.pushBlob(descriptor, contentOf(Buffer.alloc(5000, 2)), { signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    await expect(target.pushBlob(descriptor, contentOf(bytes.subarray(1)), { signal })).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    expect(await readdir(path.join(directory, 'blobs/sha256'))).toEqual([])
    expect((await readdir(directory)).filter((name) => name.startsWith('.'))).toEqual([])
  }))

  it('believes an old blob only after hashing it, and replaces a damaged one', () => layout(async (directory) => {
    const image = await write(directory, 'latest')
    const { descriptor, bytes } = image.layers[0]!
    const file = path.join(directory, 'blobs/sha256', descriptor.digest.slice(7))
    await writeFile(file, Buffer.alloc(bytes.length, 7))
    await using target = await openTarget(`oci:${directory}`, { signal })
    await using source = await openSource(`oci:${directory}`, { signal })
    await expect(collect(source.openBlob(descriptor, { signal }), 5000)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
    expect(await target.hasBlob(descriptor, { signal })).toBe(false)
    await target.pushBlob(descriptor, contentOf(bytes), { signal })
    expect((await readFile(file)).equals(bytes)).toBe(true)
  }))

  it.each([
    ['shorter', (bytes: Buffer) => bytes.subarray(0, -1)], ['longer', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from('x')])], ['empty', () => Buffer.alloc(0)],
  ])('refuses a blob that is %s than its descriptor', (_, change) => layout(async (directory) => {
    const { descriptor, bytes } = (await write(directory, 'latest')).layers[0]!
    await writeFile(path.join(directory, 'blobs/sha256', descriptor.digest.slice(7)), change(bytes))
    await using source = await openSource(`oci:${directory}`, { signal })
    await expect(collect(source.openBlob(descriptor, { signal }), 5000)).rejects.toMatchObject({ code: 'REGISTRY_DIGEST_MISMATCH' })
  }))

  it('gives ranges exactly', () => layout(async (directory) => {
    const { descriptor, bytes } = (await write(directory, 'latest')).layers[0]!
    await using source = await openSource(`oci:${directory}`, { signal })
    for (const [offset, length] of [[0, 10], [10, 0], [990, 10], [0, 1000]] as const) {
      expect(Buffer.from(await collect(source.openBlob(descriptor, { offset, length, signal }), 5000)).equals(bytes.subarray(offset, offset + length))).toBe(true)
    }
    await expect(collect(source.openBlob(descriptor, { offset: 990, length: 11, signal }), 5000)).rejects.toMatchObject({ code: 'FORMAT_OUT_OF_RANGE' })
  }))

  it.each([
    ['oci-layout', 'not json', 'REGISTRY_STORE'], ['oci-layout', '{"imageLayoutVersion":"2.0.0"}', 'REGISTRY_STORE'],
    ['index.json', '[]', 'FORMAT_INVALID'], ['index.json', '{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"../../etc/passwd","size":1}]}', 'FORMAT_INVALID'],
  ])('with a bad %s is refused: %s', (name, text, code) => layout(async (directory) => {
    await write(directory, 'latest')
    await writeFile(path.join(directory, name), text)
    await expect(digestAt(`oci:${directory}`)).rejects.toMatchObject({ code })
  }))

  it('that is missing is not created by reading', () => layout(async (directory) => {
    await expect(digestAt(`oci:${directory}`)).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    await expect(stat(directory)).rejects.toMatchObject({ code: 'ENOENT' })
  }))

  it('that cannot be written is named with the reason', () => layout(async (directory) => {
    await writeFile(directory, 'a file')
    await expect(openTarget(`oci:${directory}`, { signal })).rejects.toMatchObject({ code: 'REGISTRY_STORE', message: expect.stringMatching(/EEXIST|ENOTDIR/) })
  }))

  it('keeps every image that several writers publish at once', () => layout(async (directory) => {
    const names = Array.from({ length: 12 }, (_, index) => `image:${index}`)
    await Promise.all(names.map((name) => write(directory, name, [100])))
    const store = await LayoutStore.open(directory, { create: false })
    expect((await store.entries()).length).toBe(12)
  }))
})

describe('names in a layout', () => {
  it.each([['latest', undefined, 'latest'], ['a/b:1', 'a/b', '1'], ['h:5000/a:1', 'h:5000/a', '1']])('%s', (name, repository, tag) => {
    expect(splitName(name)).toEqual({ repository, tag })
  })
})

/** A process that holds a lock on `file` until its stdin ends. */
async function lockElsewhere(file: string): Promise<{ release(how: NodeJS.Signals): Promise<void> }> {
  const child = spawn('flock', ['-x', file, 'sh', '-c', 'echo ready; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return { async release(how) { child.kill(how); child.stdin.destroy(); await once(child, 'close') } }
}

describe('the lock of a layout', () => {
  it('makes an update wait for another process, and is free once that was killed', () => layout(async (directory) => {
    await write(directory, 'one')
    const store = await LayoutStore.open(directory, { create: false })
    const other = await lockElsewhere(path.join(directory, 'oci-layout'))
    let done = false
    const update = store.update((entries) => [...entries], { signal }).then(() => { done = true })
    await new Promise((resolve) => { setTimeout(resolve, 100) })
    expect(done).toBe(false)
    await other.release('SIGKILL')
    await update
  }))

  it('can be left while waiting, without disturbing those behind', () => layout(async (directory) => {
    await mkdir(directory)
    const file = path.join(directory, 'lock')
    await writeFile(file, '')
    let free = () => {}
    const order: string[] = []
    const first = withFileLock(file, { signal }, async () => { await new Promise<void>((resolve) => { free = resolve }); order.push('first') })
    const leaving = new AbortController()
    const second = withFileLock(file, { signal: leaving.signal }, async () => { order.push('second') })
    const third = withFileLock(file, { signal }, async () => { order.push('third') })
    leaving.abort(new Error('left'))
    await expect(second).rejects.toThrow('left')
    await new Promise((resolve) => { setTimeout(resolve, 50) })
    free()
    await Promise.all([first, third])
    expect(order).toEqual(['first', 'third'])
  }))
})

describe('temporary files', () => {
  it('of a process that died are removed by the next writer; those in use stay', () => layout(async (directory) => {
    await write(directory, 'one')
    const dead = path.join(directory, '.nydus-tmp-dead')
    const alive = path.join(directory, '.nydus-tmp-alive')
    await writeFile(dead, 'x')
    await writeFile(alive, 'x')
    const other = await lockElsewhere(alive)
    await using mine = await TempFile.create(directory)
    await write(directory, 'two')
    await expect(stat(dead)).rejects.toMatchObject({ code: 'ENOENT' })
    await stat(alive)
    await stat(mine.path)
    await other.release('SIGKILL')
    await write(directory, 'three')
    await expect(stat(alive)).rejects.toMatchObject({ code: 'ENOENT' })
  }))

  it('are gone when disposed, and are the target after commit', () => layout(async (directory) => {
    await mkdir(directory)
    {
      await using temp = await TempFile.create(directory)
      await temp.append(Buffer.from('new'))
    }
    expect(await readdir(directory)).toEqual([])
    const target = path.join(directory, 'target')
    await writeFile(target, 'old')
    {
      await using temp = await TempFile.create(directory)
      await temp.append(Buffer.from('new'))
      expect(await readFile(target, 'utf8')).toBe('old')
      await temp.commit(target)
    }
    expect(await readdir(directory)).toEqual(['target'])
    expect(await readFile(target, 'utf8')).toBe('new')
  }))

  it('of spools have a name that is swept, and a sweeper may be quicker than their owner', () => layout(async (directory) => {
    await mkdir(directory)
    const names = new Set<string | null>()
    const watcher = watch(directory, (_, name) => { names.add(name) })
    const used = Promise.all(Array.from({ length: 50 }, async (_, i) => {
      await using spool = await Spool.open(directory)
      await spool.write(Buffer.from(`spool ${i}`))
      for await (const bytes of spool.read(0, 100)) expect(String(bytes)).toBe(`spool ${i}`)
    }))
    for (let sweeps = 0; sweeps < 20; sweeps++) await sweepTempFiles(directory)
    await used
    await expect.poll(() => names.size).toBe(50)
    watcher.close()
    expect([...names].filter((name) => !name?.startsWith('.nydus-tmp-'))).toEqual([])
    expect(await readdir(directory)).toEqual([])
  }))

  it('are swept without ever failing', async () => {
    await sweepTempFiles('/nonexistent/directory')
  })
})

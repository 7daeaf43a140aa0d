// The name of a conversion's target is written when everything that it names has arrived.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { hostPlatform } from '../../src/format/oci/platform.ts'
import { convertImage, WorkDirectory } from '../../src/image/index.ts'
import { inProcessBuilder } from '../../src/library/in-process-builder.ts'
import { type ImageTarget, openSource, openTarget } from '../../src/registry/index.ts'
import { gzipLayer, LayoutMaker } from '../image/make-image.ts'

/** A target to which the first blobs, the layers, take longer than all others, and what happens to it, in order. */
function slow(target: ImageTarget): { readonly target: ImageTarget; readonly log: string[] } {
  const log: string[] = []
  let blobs = 0
  const late = async <T>(work: Promise<T>): Promise<T> => {
    const isLayer = blobs++ < 2
    const value = await work
    if (isLayer) await new Promise((resolve) => setTimeout(resolve, 300))
    log.push('blob')
    return value
  }
  const wrapped: ImageTarget = Object.create(target, {
    pushBlob: { value: (...args: Parameters<ImageTarget['pushBlob']>) => late(target.pushBlob(...args)) },
    pushStream: { value: (...args: Parameters<ImageTarget['pushStream']>) => late(target.pushStream(...args)) },
    hasBlob: { value: target.hasBlob.bind(target) }, mountBlob: { value: target.mountBlob.bind(target) }, fetchManifest: { value: target.fetchManifest.bind(target) },
    pushManifest: { value: async (...args: Parameters<ImageTarget['pushManifest']>) => { log.push(args[1].final ? 'name' : 'manifest'); return target.pushManifest(...args) } },
    finish: { value: target.finish.bind(target) },
  })
  return { target: wrapped, log }
}

it('a conversion writes the name last', async () => {
  const base = mkdtempSync(path.join(tmpdir(), 'tag-last-'))
  const { signal } = new AbortController()
  try {
    const maker = new LayoutMaker(path.join(base, 'source'))
    const platform = hostPlatform()
    maker.name(maker.image([gzipLayer([{ path: 'a', data: 'one' }]), gzipLayer([{ path: 'b', data: 'two' }])], { config: { ...platform } }), 'x')
    await using source = await openSource(`oci:${maker.directory}:x`, { signal })
    await using opened = await openTarget(`oci:${path.join(base, 'target')}:x`, { signal })
    await using work = await WorkDirectory.open(path.join(base, 'work'))
    const { target, log } = slow(opened)
    await convertImage({
      source, target, builder: inProcessBuilder(), work, platforms: [platform], cache: undefined, dictionary: undefined, signal, sourceReference: 'x', oci: false, mergePlatform: false, referrer: false,
      settings: { compressor: 'zstd', chunkSize: 0x10_0000, batchSize: 0, alignedChunk: false, prefetchPatterns: '/', chunkDict: undefined },
    })
    expect(log).toEqual(['blob', 'blob', 'blob', 'blob', 'name'])
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

// Upstream's images through our FUSE mount, against what upstream's mount of them shows; and damaged bootstraps.

import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { differences, expectOfCase, parseScan, type TreeEntry, VECTORS } from '../support/expect.ts'
import { runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'
import { bootstrapOf, BROKEN_CASES, mutated, mutations, readableCases, UNSUPPORTED_CASES } from '../support/vectors.ts'

/** In a process of its own that can be given up: a mount that hangs must not hang the test. */
async function scan(root: string): Promise<TreeEntry[]> {
  const { stdout } = await promisify(execFile)('python3', [path.join(VECTORS, 'scan.py'), root], { maxBuffer: 2 ** 28, timeout: 60_000, killSignal: 'SIGKILL' })
  return parseScan(stdout)
}

const fileOf = (name: string): string => path.join(VECTORS, name, bootstrapOf(name).file)

describe('a FUSE mount of upstream\'s image', () => {
  // blob-cache-dir has its data in a form that no backend serves
  const cases = readableCases().filter((name) => name !== 'blob-cache-dir' && expectOfCase(name) !== undefined)

  it.each(cases)('%s shows what it should, from the blobs and again from the cache', async (name) => {
    using scratch = new Scratch()
    for (const round of ['cold', 'cached']) {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', fileOf(name), '--config', scratch.config()])
      expect(await differences(expectOfCase(name)!, { walk: () => [] }), 'the comparison can fail').not.toEqual([])
      const tree = await scan(scratch.mountpoint)
      expect(await differences(expectOfCase(name)!, { walk: () => tree }, { ignore: ['nlink', 'sameAs'] }), round).toEqual([])
    }
  })

  it('has the image\'s own root mode, which upstream\'s mount has not', async () => {
    using scratch = new Scratch()
    await using _daemon = await startNydusd(scratch, ['--bootstrap', fileOf('layer-upper'), '--config', scratch.config()])
    expect((await scan(scratch.mountpoint)).find((entry) => entry.path === '/')?.mode).toBe(0o711)
  })

  it.each([...Object.entries(UNSUPPORTED_CASES)])('%s is refused before anything is mounted', async (name, reason) => {
    using scratch = new Scratch()
    const end = await runNydusd(['--bootstrap', fileOf(name), '--config', scratch.config(), '--mountpoint', scratch.mountpoint])
    expect(end).toMatchObject({ status: 1, stderr: expect.stringMatching(reason) })
    expect(scratch.isMounted()).toBe(false)
  })

  it.each(BROKEN_CASES)('%s, which nobody can read, is refused or listed with errors', async (name) => {
    using scratch = new Scratch()
    try {
      await using _daemon = await startNydusd(scratch, ['--bootstrap', fileOf(name), '--config', scratch.config()])
      await scan(scratch.mountpoint).catch(() => {})
    } catch (error) {
      expect(String(error)).toMatch(/"status":1/)
    }
  })
})

describe('a damaged bootstrap', () => {
  it.each(mutations())('$name neither crashes nor hangs the daemon, and is not accepted where upstream refuses it', async (mutation) => {
    using scratch = new Scratch()
    const boot = path.join(scratch.path, 'boot')
    writeFileSync(boot, mutated(bootstrapOf('should-fail').bytes, mutation))
    const refusedUpstream = mutation.check.exit === 1 && mutation.nydusd.mount === 'refused'
    let mounted = false
    try {
      await using daemon = await startNydusd(scratch, ['--bootstrap', boot, '--config', scratch.config()])
      mounted = true
      const result = await scan(scratch.mountpoint).catch((error: unknown) => error)
      expect(result, 'hangs while reading').not.toMatchObject({ killed: true })
      expect((await daemon.ask('GET', '/api/v1/daemon')).status).toBe(200)
    } catch (error) {
      if (mounted) throw error
      expect(String(error)).toMatch(/"status":1/)
    }
    expect(mounted && refusedUpstream).toBe(false)
  })
})

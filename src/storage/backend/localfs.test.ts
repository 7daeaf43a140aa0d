import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { LocalfsBackend } from './localfs.ts'

const directory = mkdtempSync(path.join(tmpdir(), 'nydus-localfs-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const { signal } = new AbortController()

describe('localfs backend', () => {
  it('reads a blob that was replaced by another file, also by many readers at once', async () => {
    const file = path.join(directory, 'blob')
    writeFileSync(file, 'damaged')
    const backend = new LocalfsBackend({ dir: directory })
    try {
      const reader = backend.open('blob')
      expect(Buffer.from(await reader.read(0, 7, { signal })).toString()).toBe('damaged')
      writeFileSync(`${file}.new`, 'the good one')
      renameSync(`${file}.new`, file)
      const both = await Promise.all([0, 1, 2, 3].map(() => reader.read(0, 12, { signal })))
      expect(both.map((bytes) => Buffer.from(bytes).toString())).toEqual(Array(4).fill('the good one'))
      expect(await reader.size({ signal })).toBe(12)
    } finally {
      await backend.close()
    }
  })

  it('goes on with a blob that is gone, and takes the one that comes back', async () => {
    const file = path.join(directory, 'gone')
    writeFileSync(file, 'first')
    const backend = new LocalfsBackend({ dir: directory })
    try {
      const reader = backend.open('gone')
      await reader.size({ signal })
      rmSync(file)
      for (let i = 0; i < 3; i++) expect(Buffer.from(await reader.read(0, 5, { signal })).toString()).toBe('first')
      writeFileSync(file, 'again')
      expect(Buffer.from(await reader.read(0, 5, { signal })).toString()).toBe('again')
    } finally {
      await backend.close()
    }
  })
})

import { execFileSync } from 'node:child_process'
import { chmodSync, linkSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytesOf, fromText } from '../core/byte-string.ts'
import { makeNode, readXattrs, setTime, setXattr } from './file.ts'
import { scanDirectory, scanRecord } from './scan-directory.ts'

const directory = mkdtempSync(path.join(tmpdir(), 'nydus-scan-'))
const inside = (name: string): string => `${directory}/${name}`
const oddName = 'odd \n\xff\xfe name'

beforeAll(() => {
  writeFileSync(inside('file'), 'hello')
  chmodSync(inside('file'), 0o4751)
  linkSync(inside('file'), inside('hard'))
  symlinkSync(Buffer.from('target \xff', 'latin1'), inside('link'))
  mkdirSync(inside('directory'))
  makeNode(inside('fifo'), { mode: 0o010644, rdev: 0 })
  writeFileSync(bytesOf(inside(oddName)), '')
  writeFileSync(inside('large'), '')
  truncateSync(inside('large'), 5 * 2 ** 32 + 7)
  setTime(inside('file'), { seconds: -86_400, nanoseconds: 123_456_789 })
  setTime(inside('link'), { seconds: 2 ** 33, nanoseconds: 1 })
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

describe('scanDirectory', () => {
  it('tells of each entry what lstat tells, sorted bytewise', async () => {
    const entries = await scanDirectory(directory)
    const names = ['directory', 'fifo', 'file', 'hard', 'large', 'link', oddName]
    expect(entries.map(({ name }) => name)).toEqual(names)
    for (const entry of entries) {
      const status = lstatSync(bytesOf(inside(entry.name)), { bigint: true })
      const { mode, uid, gid, size, rdev, dev, ino, nlink } = entry
      expect({ mode, uid, gid, size, rdev, dev, ino, nlink }).toEqual({
        mode: Number(status.mode), uid: Number(status.uid), gid: Number(status.gid), size: Number(status.size),
        rdev: Number(status.rdev), dev: Number(status.dev), ino: Number(status.ino), nlink: Number(status.nlink),
      })
      expect(BigInt(entry.mtime) * 1_000_000_000n + BigInt(entry.mtimeNsec)).toBe(status.mtimeNs)
    }
    expect(entries.find(({ name }) => name === 'link')!.link).toBe('target \xff')
    expect(entries.find(({ name }) => name === 'file')).not.toHaveProperty('link')
    expect(entries.find(({ name }) => name === 'file')).toMatchObject({ mtime: -86_400, mtimeNsec: 123_456_789, nlink: 2, mode: 0o104751 })
  })

  it('finds every extended attribute, sorted, with binary values', async () => {
    const value = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
    for (const name of ['user.z', 'user.a', fromText('user.ä')]) setXattr(inside('file'), name, value)
    setXattr(inside('file'), 'user.empty', new Uint8Array(0))
    const entries = await scanDirectory(directory)
    const { xattrs } = entries.find(({ name }) => name === 'hard')!
    expect(xattrs!.map(([name]) => name)).toEqual(['user.a', 'user.empty', 'user.z', fromText('user.ä')])
    expect(xattrs!.map(([, bytes]) => bytes.length)).toEqual([256, 0, 256, 256])
    expect(xattrs![0]![1].equals(value)).toBe(true)
    expect(readXattrs(inside('file'))).toEqual(xattrs)
    expect(entries.find(({ name }) => name === 'directory')).not.toHaveProperty('xattrs')
  })

  it('gives an empty list for an empty directory and a coded error for what is none', async () => {
    expect(await scanDirectory(inside('directory'))).toEqual([])
    await expect(scanDirectory(inside('missing\xff'))).rejects.toMatchObject({ code: 'NATIVE_SYSCALL', context: { errnoName: 'ENOENT', path: inside('missing\\xff') } })
    await expect(scanDirectory(inside('file'))).rejects.toMatchObject({ context: { errnoName: 'ENOTDIR' } })
    await expect(scanDirectory('/nul\0')).rejects.toThrow(TypeError)
  })

  it('scans thousands of entries', async () => {
    const many = inside('directory/many')
    mkdirSync(many)
    execFileSync('sh', ['-c', 'cd "$1" && seq 5000 | xargs touch', 'sh', many])
    const entries = await scanDirectory(many)
    expect(new Set(entries.map(({ name }) => name)).size).toBe(5000)
    expect(scanRecord.size % 8).toBe(0)
  })
})

import { describe, expect, it } from 'vitest'
import { CodedError } from '../../core/errors.ts'
import { kernelLack, mountBest } from './transport.ts'

const done: string[] = []
const ways = (erofs?: Error) => {
  done.length = 0
  return {
    mountErofs: async () => { if (erofs) throw erofs; done.push('erofs') },
    mountFuse: async () => { done.push('fuse') },
  }
}
const unsuitable = new CodedError('FORMAT_UNSUPPORTED', 'kernel EROFS: the cache is encrypted')

describe.runIf(kernelLack() === undefined)('mountBest', () => {
  it('takes fileio where the kernel can, and says why not fanotify', async () => {
    expect(await mountBest('auto', ways())).toEqual({ requested: 'auto', chosen: 'fileio', reason: expect.stringContaining('fanotify is not in this version') })
    expect(done).toEqual(['erofs'])
  })

  it('falls back to FUSE for what the kernel cannot mount, with the reason', async () => {
    expect(await mountBest('auto', ways(unsuitable))).toEqual({ requested: 'auto', chosen: 'fuse', reason: 'kernel EROFS: the cache is encrypted' })
    expect(done).toEqual(['fuse'])
  })

  it('refuses by name: fanotify always, fileio where it cannot be', async () => {
    await expect(mountBest('fanotify', ways())).rejects.toMatchObject({ code: 'SERVE_UNSUPPORTED' })
    await expect(mountBest('fileio', ways(unsuitable))).rejects.toBe(unsuitable)
    expect(done).toEqual([])
  })

  it('does not hide an image that is damaged behind another transport', async () => {
    await expect(mountBest('auto', ways(new CodedError('FORMAT_INVALID', 'damaged')))).rejects.toMatchObject({ code: 'FORMAT_INVALID' })
  })
})

describe('kernelLack', () => {
  it.each([
    ['6.18.44', 0, undefined], ['6.12.0-rc1', 0, undefined], ['7.0', 0, undefined],
    ['6.11.9', 0, 'mounting from files needs Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE, this is 6.11.9'], ['5.15.0-91-generic', 0, expect.stringContaining('this is 5.15.0-91-generic')],
    ['6.18.44', 1000, 'mounting needs root in the initial user namespace'],
  ])('judges Linux %s for user %i', (release, uid, lack) => expect(kernelLack(release, uid)).toEqual(lack))
})

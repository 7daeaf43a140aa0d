import { describe, expect, it } from 'vitest'
import { CodedError } from '../../core/errors.ts'
import { kernelLack, mountBest, type Transport } from './transport.ts'

const done: string[] = []
const chosen: Transport = { requested: 'auto', chosen: 'fanotify', reason: 'the best' }
const ways = (erofs?: Error) => {
  done.length = 0
  return {
    mountErofs: async () => { if (erofs) throw erofs; done.push('erofs'); return chosen },
    mountFuse: async () => { done.push('fuse') },
  }
}
const unsuitable = new CodedError('FORMAT_UNSUPPORTED', 'kernel EROFS: the cache is encrypted')

describe.runIf(kernelLack('fanotify') === undefined)('mountBest', () => {
  it('takes the kernel where it can', async () => {
    expect(await mountBest('auto', ways())).toBe(chosen)
    expect(done).toEqual(['erofs'])
  })

  it('falls back to FUSE for what the kernel cannot mount, with the reason', async () => {
    expect(await mountBest('auto', ways(unsuitable))).toEqual({ requested: 'auto', chosen: 'fuse', reason: 'kernel EROFS: the cache is encrypted' })
    expect(done).toEqual(['fuse'])
  })

  it.each(['fanotify', 'fileio'] as const)('takes %s by name, or refuses it', async (fill) => {
    expect(await mountBest(fill, ways())).toBe(chosen)
    await expect(mountBest(fill, ways(unsuitable))).rejects.toBe(unsuitable)
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
  ])('judges Linux %s for user %i', (release, uid, lack) => expect(kernelLack('fileio', release, uid)).toEqual(lack))

  it('wants a newer kernel for fanotify', () => {
    expect(kernelLack('fanotify', '6.13.9', 0)).toMatch(/Linux 6\.14 with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, this is 6\.13\.9/)
    expect([kernelLack('auto', '6.13.9', 0), kernelLack('fanotify', '6.14.0', 0)]).toEqual([undefined, undefined])
  })
})

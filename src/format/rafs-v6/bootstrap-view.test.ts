import { describe, expect, it } from 'vitest'
import { bootstrapOf, bootstrapsOf, readableCases, UNSUPPORTED_CASES } from '../../../test/support/vectors.ts'
import { bootstrapProvider, differences, expectOfCase } from '../../../test/support/expect.ts'
import { BootstrapView } from './bootstrap-view.ts'

const open = (name: string) => { const { bytes, blobIdFromName } = bootstrapOf(name); return BootstrapView.open(bytes, { blobIdFromName }) }

describe('BootstrapView over upstream\'s images', () => {
  it.each(readableCases())('shows the tree of %s as upstream\'s daemon does', async (name) => {
    const expected = expectOfCase(name)
    const found = expected && await differences(expected, bootstrapProvider(open(name)))
    expect(found ?? []).toEqual([])
  })

  it.each(Object.entries(UNSUPPORTED_CASES))('refuses %s and says why', (name, reason) => {
    expect(() => open(name)).toThrow(expect.objectContaining({ code: 'FORMAT_UNSUPPORTED', message: expect.stringMatching(reason) }))
  })

  it('opens the second bootstrap of a directory build', () => {
    const external = bootstrapsOf('v6-small-zstd').find(({ file }) => file.endsWith('.external'))!
    const view = BootstrapView.open(external.bytes)
    expect([...view.entries(view.inode(view.rootNid))].map(({ name }) => name)).toEqual(['.', '..'])
  })
})

// dm-verity itself, in a real machine (the kernel of this one has no device mapper): an exported disk opens with what the export printed, and a flipped bit is EIO.

import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { bootGuest, guestIsThere } from '../support/guest.ts'
import { Scratch } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'
import { parseVerityLine } from '../support/verity.ts'

const BUILDER = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const CASE = 'v6-rich-zstd'
const present = requires.root && requires.program('qemu-system-x86_64') && requires.program('dmsetup') && requires.that(guestIsThere(), 'needs a guest kernel (node scripts/guest.mjs)')

describe.runIf(present)('an exported disk behind dm-verity', () => {
  it('reads as the image, and gives EIO for the block with a flipped bit', { timeout: 180_000 }, async () => {
    using scratch = new Scratch()
    const good = path.join(scratch.path, 'good.img')
    const bad = path.join(scratch.path, 'bad.img')
    const bootstrap = path.join(VECTORS, CASE, 'image.boot')
    const printed = execFileSync(BUILDER, ['export', '--block', '--verity', '-B', bootstrap, '-D', path.join(VECTORS, 'blobs'), '-O', good], { encoding: 'utf8' })
    const { blocks, blockSize, hashOffset, root } = parseVerityLine(printed)
    copyFileSync(good, bad)
    const bytes = readFileSync(bad)
    const flipped = BootstrapView.open(readFileSync(bootstrap)).devices[0]!.mappedBlock // the first block of the first blob
    bytes[flipped * blockSize + 100]! ^= 1
    writeFileSync(bad, bytes)
    // the kernel reads whole sectors of a file: both disks end on a hash block
    const table = (device: string): string => `0 ${(blocks * blockSize) / 512} verity 1 ${device} ${device} ${blockSize} 4096 ${blocks} ${hashOffset / 4096} sha256 ${root} -`
    await using guest = bootGuest(`
export PATH=/bin:/usr/sbin
dmsetup create good --readonly --noudevsync --table "${table('/dev/vda')}" && dmsetup create bad --readonly --noudevsync --table "${table('/dev/vdb')}" || exit 1
mount -t erofs -o ro /dev/dm-0 /mnt || exit 2
cd /mnt; find . -type f | sort | while read -r f; do echo "SUM $(sha256sum "$f")"; done; cd /
dd if=/dev/dm-1 of=/dev/null bs=4096 skip=${flipped} count=1 2>&1 | grep -q error && echo "BAD refused"
dd if=/dev/dm-1 of=/dev/null bs=4096 skip=${flipped + 1} count=1 2>/dev/null && echo "BAD next is good"
dd if=/dev/vdb of=/dev/null bs=4096 skip=${flipped} count=1 2>/dev/null && echo "BAD readable without verity"`, { disks: [good, bad], programs: ['/usr/sbin/dmsetup'] })
    const console = await guest.ended
    const sums = new Map([...console.matchAll(/SUM ([0-9a-f]{64}) {2}\.(\S+)/g)].map(([, sum, name]) => [name!, sum!]))
    const tree = expectOfCase(CASE)!.filter(({ type, path: name }) => type === 'reg' && /^[\x21-\x7e]+$/.test(name))
    expect(tree.filter((entry) => sums.get(entry.path) !== entry.sha256).map((entry) => entry.path)).toEqual([])
    expect(console).toMatch(/BAD refused/)
    expect(console).toMatch(/BAD next is good/)
    expect(console).toMatch(/BAD readable without verity/)
    expect(console).toMatch(/GUEST: exit 0/)
  })
})

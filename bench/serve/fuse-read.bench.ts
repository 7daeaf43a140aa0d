// Data through FUSE: sequential reads of 128 KiB and 1 MiB, random reads of 4 KiB by one and by eight readers, from nothing (cold), from the blob
// cache (dropped) and from the page cache (hot), beside upstream's daemon. Needs fio.
//   NYDUS_PEER_NYDUSD=/path/of/nydusd [BENCH_ROUNDS=5] node bench/run.mjs serve/fuse-read

import { randomBytes } from 'node:crypto'
import { appendFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { compare, dropCaches, measure, type Sample, servers, Stage } from './stage.ts'

const MIB = 256
const fio = (name: string, pattern: string, block: string, more = ''): string => `fio --name=${name} --filename=big --readonly --rw=${pattern} --bs=${block} --ioengine=psync --output=/dev/null ${more}`
const COMMANDS: Readonly<Record<string, string>> = {
  'sequential 1M': fio('s', 'read', '1m'), 'sequential 128K': fio('s', 'read', '128k'), 'random 4K': fio('r', 'randread', '4k', '--io_size=64m --randseed=1'),
  'random 4K x8': fio('r', 'randread', '4k', '--numjobs=8 --group_reporting --io_size=8m --randseed=1'),
}

delete process.env['BENCH_TREE']
using stage = new Stage((directory) => {
  for (let i = 0; i < MIB; i++) appendFileSync(path.join(directory, 'big'), Buffer.concat([randomBytes(2 ** 19), Buffer.alloc(2 ** 19, 'compressible ')]))
})
compare('serve/fuse-read', stage, (pid) => {
  const results: Record<string, Sample> = {}
  dropCaches()
  results['sequential 1M, cold'] = measure(pid, stage.mountpoint, COMMANDS['sequential 1M']!)
  for (const [name, command] of Object.entries(COMMANDS)) {
    dropCaches()
    results[`${name}, dropped`] = measure(pid, stage.mountpoint, command)
    measure(pid, stage.mountpoint, 'cat big')
    results[`${name}, hot`] = measure(pid, stage.mountpoint, command)
  }
  for (const { name } of servers) rmSync(path.join(stage.path, `cache-${name}`), { recursive: true, force: true }) // cold again in the next round
  return results
})

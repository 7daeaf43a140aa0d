// Eight readers of everything, from an empty cache: what fetching, verifying, decompressing and storing chunks costs. Beside upstream's daemon.
//   NYDUS_PEER_NYDUSD=/path/of/nydusd [BENCH_TREE=/usr/src/linux] [BENCH_ROUNDS=3] node bench/run.mjs serve/fill

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { compare, dropCaches, measure, servers, Stage } from './stage.ts'

const READERS = 8
const DIRECTORIES = 100
const FILES = 100

// Each reader takes every eighth file: no two of them ask for the same one, all of them for the same chunks around it.
const PARALLEL = `for i in $(seq ${READERS}); do awk "NR % ${READERS} == $i - 1" "$FILE_LIST" | xargs -d '\\n' cat > /dev/null & done; wait`

using stage = new Stage((directory) => {
  for (let d = 0; d < DIRECTORIES; d++) {
    mkdirSync(path.join(directory, `directory-${d}`))
    for (let f = 0; f < FILES; f++) writeFileSync(path.join(directory, `directory-${d}`, `file-${f}`), Buffer.concat([randomBytes(8192 + f * 128), Buffer.alloc(16_384, 'compressible ')]))
  }
})
process.env['FILE_LIST'] = path.join(stage.path, 'list')
compare('serve/fill', stage, (pid) => {
  measure(pid, stage.mountpoint, 'find . -type f > "$FILE_LIST"')
  dropCaches()
  const filled = measure(pid, stage.mountpoint, PARALLEL)
  dropCaches()
  const again = measure(pid, stage.mountpoint, PARALLEL)
  for (const { name } of servers) rmSync(path.join(stage.path, `cache-${name}`), { recursive: true, force: true }) // cold again in the next round
  return { 'eight readers, cold': filled, 'eight readers, dropped': again }
})

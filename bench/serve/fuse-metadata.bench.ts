// Metadata and small files through FUSE: find, ls -lR, lstat, tar, git status, page cache dropped and hot, beside upstream's daemon.
//   NYDUS_PEER_NYDUSD=/path/of/nydusd [BENCH_TREE=/usr/src/linux] [BENCH_ROUNDS=5] node bench/run.mjs serve/fuse-metadata

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { compare, dropCaches, measure, type Sample, Stage } from './stage.ts'

const DIRECTORIES = 400
const FILES = 200

// lstat of every path, from a list: no readdir in between.
const LSTAT = 'python3 -c "import os,sys\nfor line in open(sys.argv[1],\'rb\'): os.lstat(line[:-1])" "$LIST"'
const COMMANDS: Readonly<Record<string, string>> = {
  'find -ls': 'find . -ls', 'ls -lR': 'ls -lR', lstat: LSTAT, tar: 'tar c . | cat', 'git status': 'git -c core.trustctime=false status --porcelain',
}
/** An index of its own for each mount, with the inode numbers seen there: else git reads every file again. */
const OWN_INDEX = 'cp .git/index "$GIT_INDEX_FILE" && git -c core.trustctime=false update-index -q --refresh'
/** Fills the blob cache: what is dropped below is the page cache. */
const FILL = 'find . > "$LIST"; tar c . | cat'

function makeTree(directory: string): void {
  const text = Buffer.alloc(8192, 'The quick brown fox jumps over the lazy dog.\n')
  for (let d = 0; d < DIRECTORIES; d++) {
    const folder = path.join(directory, `part-${d % 20}`, `directory-${d}`)
    mkdirSync(folder, { recursive: true })
    for (let f = 0; f < FILES; f++) writeFileSync(path.join(folder, `file-${f}.ts`), `${d}/${f}\n${text.subarray(0, 200 + (f * 37 + d * 11) % 5000)}`)
  }
  const git = (...args: string[]): void => { execFileSync('git', ['-c', 'gc.auto=0', '-c', 'maintenance.auto=false', '-c', 'user.name=bench', '-c', 'user.email=bench@localhost', ...args], { cwd: directory, stdio: 'ignore' }) }
  git('init', '-q')
  git('add', '.')
  git('commit', '-qm', 'all')
}

using stage = new Stage(makeTree)
const list = path.join(stage.path, 'list')
process.env['LIST'] = list
process.env['GIT_INDEX_FILE'] = path.join(stage.path, 'index')
process.env['GIT_OPTIONAL_LOCKS'] = '0'
compare('serve/fuse-metadata', stage, (pid) => {
  const results: Record<string, Sample> = {}
  const isWorkTree = existsSync(path.join(stage.mountpoint, '.git')) // BENCH_TREE need not be one
  measure(pid, stage.mountpoint, FILL)
  if (isWorkTree) measure(pid, stage.mountpoint, OWN_INDEX)
  for (const [name, command] of Object.entries(COMMANDS)) {
    if (name === 'git status' && !isWorkTree) continue
    dropCaches()
    results[`${name}, dropped`] = measure(pid, stage.mountpoint, command)
    results[`${name}, hot`] = measure(pid, stage.mountpoint, command)
  }
  return results
})

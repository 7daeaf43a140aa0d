#!/usr/bin/env node
// Builds everything that runs: the native addon (scripts/build-native.mjs), dist/ from src/, and dist/build-info.json. Quick when nothing changed.
// dist/ is made elsewhere and brought in file by file, by renames, and only what has changed: a program that starts meanwhile finds every file,
// whole, and a build that fails changes nothing.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { rolldown } from 'rolldown'

const root = path.resolve(import.meta.dirname, '..')
const dist = path.join(root, 'dist')
const NEXT = 'next-'

// Of undici the daemon needs connection pools and requests. All of the package is 130 ms of CPU time at the start, these parts are 20: no
// fetch, no HTTP/2. Proxies load the package itself.
const undici = path.join(root, 'node_modules/undici')
const LICENCE = `/*! Parts of undici:\n${fs.readFileSync(path.join(undici, 'LICENSE'), 'utf8')}*/`
const leanPool = {
  name: 'lean-pool',
  load(id) {
    const from = (name) => JSON.stringify(path.join(undici, 'lib', name))
    if (id.endsWith('/registry/http/pool.js')) {
      return `import Pool from ${from('dispatcher/pool.js')}\nimport Dispatcher from ${from('dispatcher/dispatcher.js')}\nimport request from ${from('api/api-request.js')}\n`
        + 'Dispatcher.prototype.request = request\nexport { Pool }\n'
    }
    const unused = ['dispatcher/client-h2.js', 'web/fetch/body.js'].find((name) => id === path.join(undici, 'lib', name))
    return unused === undefined ? undefined : `module.exports = () => { throw new Error('${unused} of undici is not in this bundle') }`
  },
}

run('native addon', ['scripts/build-native.mjs'])
const work = workDirectory()
try {
  const next = path.join(work, 'dist')
  run('TypeScript', ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json', '--outDir', next])
  await bundle(next)
  fs.writeFileSync(path.join(next, 'build-info.json'), `${JSON.stringify(buildInfo())}\n`)
  bringIn(next)
} finally {
  fs.rmSync(work, { recursive: true, force: true })
}

function run(name, args) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' })
  if (status === 0) return
  process.stderr.write(`build: ${name} failed\n`)
  process.exit(1)
}

/** A directory on dist's file system; those of builds that were killed are removed, and this one also when the process exits early. */
function workDirectory() {
  const parent = path.join(root, 'build')
  for (const name of fs.readdirSync(parent)) {
    if (name.startsWith(NEXT) && !isAlive(Number(name.slice(NEXT.length)))) fs.rmSync(path.join(parent, name), { recursive: true, force: true })
  }
  const made = path.join(parent, `${NEXT}${process.pid}`)
  fs.mkdirSync(made)
  process.on('exit', () => fs.rmSync(made, { recursive: true, force: true }))
  return made
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

// nydusd and its worker thread as one file each: 80 modules are 40 ms of a daemon's start. Bundled apart: what both share would be files again.
// What is imported later stays in files of its own, packages stay packages; test/unit/start-up.test.ts counts what a start loads. dist/bundle is
// as deep as dist/cli: paths relative to a module's own file still lead to the package's root. No hashes in names: what a daemon has not
// loaded yet is still there after the next build.
async function bundle(next) {
  for (const [name, entry] of [['nydusd', 'cli/nydusd.js'], ['thread', 'serve/worker/thread.js'], ['device-thread', 'serve/virtiofs/device-thread.js']]) {
    const made = await rolldown({
      cwd: path.dirname(next), input: { [name]: path.join(next, entry) }, platform: 'node', external: (id) => !id.startsWith('.') && !path.isAbsolute(id), logLevel: 'warn', plugins: [leanPool],
    })
    // a worker may load parts later, too: they must not be mistaken for the daemon's of the same name
    await made.write({ dir: path.join(next, 'bundle'), format: 'esm', entryFileNames: '[name].js', chunkFileNames: name === 'nydusd' ? '[name].js' : `${name}.[name].js`, banner: ({ name }) => (name === 'pool' ? LICENCE : '') })
    await made.close()
  }
}

function buildInfo() {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
  const commit = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' })
  return { version: `v${version}`, gitCommit: commit.status === 0 ? commit.stdout.trim() : 'unknown', buildTime: new Date().toISOString() }
}

/** New and changed files first, then what is no more. */
function bringIn(next) {
  const files = filesOf(next)
  for (const name of files) {
    const [from, to] = [path.join(next, name), path.join(dist, name)]
    if (fs.existsSync(to) && fs.readFileSync(to).equals(fs.readFileSync(from))) continue
    fs.mkdirSync(path.dirname(to), { recursive: true })
    fs.renameSync(from, to)
  }
  const kept = new Set(files)
  for (const name of fs.existsSync(dist) ? filesOf(dist) : []) if (!kept.has(name)) fs.rmSync(path.join(dist, name), { force: true })
}

function filesOf(directory) {
  return fs.readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
}

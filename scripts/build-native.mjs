#!/usr/bin/env node
// Builds the C addon, native/*.c, into build/nydus.node, and the programs native/holder/*.c and native/keeper/*.c into build/nydusd-holder and
// build/nydusd-keeper (static, so that they start in no time and run with any libc), with nothing but a C compiler: no node-gyp, no Python, no download.
// liblz4, libzstd and zlib are linked in statically. Does nothing when the result is newer than every source.
//   --prebuilt   also writes stripped copies of them to prebuilt/<platform>-<arch>-<libc>/, for the package
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '..')
const nativeDirectory = path.join(root, 'native')
const buildDirectory = path.join(root, 'build')
const objectDirectory = path.join(buildDirectory, 'native')
const addon = path.join(buildDirectory, 'nydus.node')
/** Each from the C files of one directory. */
const PROGRAMS = [['holder', 'nydusd-holder'], ['keeper', 'nydusd-keeper']].map(([directory, name]) => ({
  directory: path.join(nativeDirectory, directory), program: path.join(buildDirectory, name),
}))
const headers = path.join(root, 'node_modules/node-api-headers/include')
const compiler = process.env['CC'] ?? 'cc'

/** Static libraries, with a header each and the Debian package that has both. */
const LIBRARIES = [
  { archive: 'liblz4.a', header: 'lz4.h', debianPackage: 'liblz4-dev' },
  { archive: 'libzstd.a', header: 'zstd.h', debianPackage: 'libzstd-dev' },
  { archive: 'libz.a', header: 'zlib.h', debianPackage: 'zlib1g-dev' },
]
const COMPILE = ['-std=gnu11', '-O2', '-g1', '-Wall', '-Wextra', '-Werror', '-fPIC', '-fvisibility=hidden', '-DNAPI_VERSION=8', '-isystem', headers]
// -Bsymbolic and --exclude-libs: Node exports an `inflate` and more of its own, and ours must win here and stay unseen elsewhere.
// nodynamic-undefined-weak: libzstd calls tracing hooks if somebody defines them; nobody here does, and Node must not.
const LINK = [
  '-shared', '-static-libgcc', '-Wl,-Bsymbolic', '-Wl,--exclude-libs,ALL', '-Wl,-z,nodynamic-undefined-weak', '-Wl,--gc-sections', '-Wl,--as-needed',
  '-Wl,-z,relro,-z,now',
]

/** Small before fast: they sleep nearly always, a hundred times. */
const COMPILE_PROGRAM = ['-std=gnu11', '-Os', '-g1', '-Wall', '-Wextra', '-Werror', '-ffunction-sections', '-fno-asynchronous-unwind-tables', '-static', '-Wl,--gc-sections', '-Wl,-z,relro,-z,now']

try {
  await main()
} catch (error) {
  process.stderr.write(`build-native: ${error.message}\n`)
  process.exitCode = 1
}

async function main() {
  const files = readdirSync(nativeDirectory)
  const sources = files.filter((file) => file.endsWith('.c'))
  const shared = [...files.filter((file) => file.endsWith('.h')).map((file) => path.join(nativeDirectory, file)), import.meta.filename]
  const newestShared = Math.max(...shared.map(modified))
  const jobs = sources.map((file) => ({
    source: path.join(nativeDirectory, file), object: path.join(objectDirectory, file.replace(/\.c$/, '.o')),
  }))
  const stale = jobs.filter(({ source, object }) => modified(object) < Math.max(newestShared, modified(source)))
  if (stale.length > 0 || jobs.some(({ object }) => modified(addon) < modified(object))) {
    const archives = findLibraries()
    mkdirSync(objectDirectory, { recursive: true })
    await Promise.all(stale.map(({ source, object }) => produce(object, [...COMPILE, '-c', source])))
    await produce(addon, [...LINK, ...jobs.map(({ object }) => object), ...archives])
  }
  for (const { directory, program } of PROGRAMS) {
    const files = readdirSync(directory).map((file) => path.join(directory, file))
    if (modified(program) >= Math.max(modified(import.meta.filename), ...files.map(modified))) continue
    mkdirSync(buildDirectory, { recursive: true })
    await produce(program, [...COMPILE_PROGRAM, ...files.filter((file) => file.endsWith('.c'))])
  }
  if (process.argv.includes('--prebuilt')) await makePrebuilt()
}

async function makePrebuilt() {
  const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'glibc'
  const directory = path.join(root, 'prebuilt', `${process.platform}-${process.arch}-${libc}`)
  mkdirSync(directory, { recursive: true })
  for (const [file, ...options] of [[addon, '--strip-unneeded'], ...PROGRAMS.map(({ program }) => [program, '--strip-all'])]) {
    const target = path.join(directory, path.basename(file))
    copyFileSync(file, target)
    await run('strip', [...options, target])
  }
}

/** Written beside and renamed: a process that has the old addon mapped keeps it, and two builds at once do not meet. */
async function produce(target, args) {
  const fresh = `${target}.${process.pid}`
  await run(compiler, [...args, '-o', fresh])
  renameSync(fresh, target)
}

function findLibraries() {
  if (spawnSync(compiler, ['--version']).status !== 0) throw new Error(`no C compiler "${compiler}" (Debian: apt-get install gcc libc6-dev; or set CC)`)
  if (!existsSync(headers)) throw new Error('node_modules/node-api-headers is missing (npm install)')
  const missing = new Set()
  const archives = LIBRARIES.map(({ archive, header, debianPackage }) => {
    // The compiler prints the bare name back when it does not find the file.
    const found = spawnSync(compiler, [`-print-file-name=${archive}`], { encoding: 'utf8' }).stdout.trim()
    const compiles = spawnSync(compiler, ['-E', '-include', header, '-x', 'c', '/dev/null'], { stdio: 'ignore' }).status === 0
    if (!path.isAbsolute(found) || !compiles) missing.add(debianPackage)
    return found
  })
  if (missing.size > 0) throw new Error(`static libraries are missing (Debian: apt-get install ${[...missing].join(' ')})`)
  return archives
}

function modified(file) {
  return existsSync(file) ? statSync(file).mtimeMs : 0
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('exit', (status, signal) => status === 0 ? resolve() : reject(new Error(`${command} ${args.at(-1)} ended with ${signal ?? status}`)))
  })
}

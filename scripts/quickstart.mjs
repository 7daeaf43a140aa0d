#!/usr/bin/env node
// The README's first command, after set-up: image → convert → lazy mount → program → report. Uses the programs in bin/ as a user would.
// With --vm (scripts/demo-vm.sh) the program runs in a virtual machine whose files come over virtiofs.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const root = path.resolve(import.meta.dirname, '..')
const bin = (name) => path.join(root, 'bin', name)
/** The program must answer before this part of the image has been fetched. */
const LAZY_LIMIT = 0.7
const args = process.argv.slice(2)
const dashes = args.indexOf('--')
const words = dashes < 0 ? args : args.slice(0, dashes)
const inMachine = words[0] === '--vm'
const image = words[inMachine ? 1 : 0]
const command = dashes < 0 ? [] : args.slice(dashes + 1)

const work = fs.mkdtempSync(path.join(os.tmpdir(), 'nydus-quickstart-'))
const mountpoint = path.join(work, 'mnt')
const children = []
const quit = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => quit.abort(new Error(name)))

const MiB = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`
const step = (text) => process.stderr.write(`\x1b[1m==>\x1b[0m ${text}\n`)

/** Runs a program to its end; rejects when it fails or when the user quits. */
function run(file, argv, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, argv, { stdio: ['ignore', 'pipe', 'inherit'], ...options })
    children.push(child)
    let output = ''
    child.stdout?.on('data', (data) => { output += data })
    const stop = () => child.kill('SIGTERM')
    quit.signal.addEventListener('abort', stop)
    child.on('error', reject)
    child.on('close', (code, signal) => {
      quit.signal.removeEventListener('abort', stop)
      if (quit.signal.aborted) reject(quit.signal.reason)
      else if (code === 0) resolve(output)
      else reject(new Error(`${path.basename(file)} ${argv[0] ?? ''}: ${signal ?? `exit ${code}`}`))
    })
  })
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Writes an OCI image layout with one layer a folder of `trees`. */
async function writeLayout(dir, trees, config) {
  const blobs = path.join(dir, 'blobs/sha256')
  fs.mkdirSync(blobs, { recursive: true })
  const put = (bytes, mediaType) => {
    const digest = sha256(bytes)
    fs.writeFileSync(path.join(blobs, digest), bytes)
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length }
  }
  const layers = []
  const diffIds = []
  for (const tree of trees) {
    const tar = path.join(work, 'layer.tar')
    await run('tar', ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '-cf', tar, '-C', tree, '.'])
    diffIds.push(`sha256:${(await run('sha256sum', [tar])).slice(0, 64)}`)
    await run('gzip', ['-1', '-n', '-f', tar])
    layers.push(put(fs.readFileSync(`${tar}.gz`), 'application/vnd.oci.image.layer.v1.tar+gzip'))
    fs.rmSync(`${tar}.gz`)
  }
  const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch] ?? process.arch
  const configBlob = put(Buffer.from(JSON.stringify({ architecture, os: 'linux', config, rootfs: { type: 'layers', diff_ids: diffIds } })), 'application/vnd.oci.image.config.v1+json')
  const manifest = put(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config: configBlob, layers })), 'application/vnd.oci.image.manifest.v1+json')
  fs.writeFileSync(path.join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  fs.writeFileSync(path.join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'demo/node:latest' } }] }))
  return layers.reduce((sum, layer) => sum + layer.size, 0)
}

/** A file and the shared libraries that it needs, copied under `tree` at their own paths. */
function copyProgram(tree, file) {
  const real = fs.realpathSync(file)
  const libraries = spawnSync('ldd', [real], { encoding: 'utf8' }).stdout?.match(/\/[^ )]+/g) ?? []
  for (const one of [real, ...libraries]) {
    const target = path.join(tree, one)
    if (fs.existsSync(target)) continue
    fs.mkdirSync(path.dirname(target), { recursive: true })
    fs.copyFileSync(fs.realpathSync(one), target)
    fs.chmodSync(target, 0o755)
  }
  return real
}

/** Three layers out of what this machine has: a shell with tools, Node with its libraries, npm's tree. */
async function imageOfThisMachine(dir) {
  const [shell, node, npm] = ['shell', 'node', 'npm'].map((name) => path.join(work, 'trees', name))
  for (const tool of ['sh', 'ls', 'cat', 'sha256sum', 'tar', 'find', 'grep', 'sed']) {
    const found = spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim()
    if (!found) continue
    const real = copyProgram(shell, found)
    fs.mkdirSync(path.join(shell, 'bin'), { recursive: true })
    const link = path.join(shell, 'bin', tool)
    if (!fs.existsSync(link)) fs.symlinkSync(real, link)
  }
  for (const name of ['tmp', 'proc', 'dev', 'etc']) fs.mkdirSync(path.join(shell, name), { recursive: true })
  const program = copyProgram(node, process.execPath)
  const npmTree = path.join(spawnSync('npm', ['root', '-g'], { encoding: 'utf8' }).stdout.trim(), 'npm')
  const from = fs.existsSync(npmTree) ? npmTree : path.join(root, 'node_modules')
  fs.mkdirSync(path.join(npm, 'usr/lib/node_modules'), { recursive: true })
  await run('cp', ['-a', from, path.join(npm, 'usr/lib/node_modules/')])
  await writeLayout(dir, [shell, node, npm], { Entrypoint: [program], Env: ['PATH=/bin:/usr/bin'] })
  fs.rmSync(path.join(work, 'trees'), { recursive: true })
  return [program, '-e', 'console.log("hello from node", process.version, "with", require("fs").readdirSync("/usr/lib/node_modules/npm").length, "entries of npm")']
}

/** The embedded registry over `dir`; resolves with its port and the file of its access log. */
async function startRegistry(dir) {
  const log = path.join(work, 'registry.log')
  const child = spawn(bin('nydusify'), ['serve', `oci:${dir}`, '--listen', '127.0.0.1:0', '--access-log', log], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  const port = await new Promise((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (data) => {
      text += data
      const found = /127\.0\.0\.1:(\d+)/.exec(text)
      if (found) resolve(Number(found[1]))
    })
    child.on('error', reject)
    child.on('close', (code) => reject(new Error(`nydusify serve ended with ${code}`)))
  })
  return { port, log, child }
}

/** Answers of blob requests that the registry's own log has, as {requests, bytes}. */
function fetched(log) {
  const rows = fs.existsSync(log) ? fs.readFileSync(log, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line)) : []
  const blobs = rows.filter((row) => row.method === 'GET' && /\/blobs\//.test(row.path) && row.status < 300)
  return { requests: blobs.length, bytes: blobs.reduce((sum, row) => sum + row.bytes, 0) }
}

/** The program in a chroot of a lazy FUSE mount. */
async function runInChroot(target, entry) {
  step(`mounting it lazily at ${mountpoint}, with an empty cache`)
  const mountStart = performance.now()
  const mount = spawn(bin('nydusify'), ['mount', '--target', target, '--target-insecure', '--mount-path', mountpoint, '--work-dir', path.join(work, 'mount')], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(mount)
  const ended = new Promise((_, reject) => mount.on('close', (code) => reject(new Error(`nydusify mount ended with ${code}`))))
  ended.catch(() => {})
  const mounted = (async () => {
    while (fs.statSync(mountpoint).dev === fs.statSync(work).dev) {
      quit.signal.throwIfAborted()
      await sleep(10)
    }
  })()
  await Promise.race([mounted, ended])
  const mountMs = performance.now() - mountStart
  step(`running ${entry.join(' ').slice(0, 100)}`)
  const runStart = performance.now()
  const output = await run('/usr/sbin/chroot', [mountpoint, ...entry], { env: { PATH: '/bin:/usr/bin:/usr/local/bin' } })
  return { output, mountMs, runMs: performance.now() - runStart }
}

/** The program in a virtual machine: a small initramfs mounts the image over virtiofs, puts an overlay on it and changes its root. */
async function runInMachine({ host, manifest, entry }) {
  step('starting nydusd virtiofs with an empty cache')
  const layer = manifest.layers.at(-1)
  const archive = path.join(work, 'bootstrap.tar.gz')
  fs.writeFileSync(archive, Buffer.from(await (await fetch(`http://${host}/v2/demo/node/blobs/${layer.digest}`)).arrayBuffer()))
  await run('tar', ['-xzf', archive, '-C', work, 'image/image.boot'])
  const config = path.join(work, 'config.json')
  fs.writeFileSync(config, JSON.stringify({
    device: { backend: { type: 'registry', config: { scheme: 'http', host, repo: 'demo/node' } }, cache: { type: 'blobcache', config: { work_dir: path.join(work, 'cache') } } },
    mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false },
  }))
  const socket = path.join(work, 'virtiofs.sock')
  const daemon = spawn(bin('nydusd'), ['virtiofs', '--sock', socket, '--bootstrap', path.join(work, 'image/image.boot'), '--config', config, '--log-level', 'warn'], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(daemon)
  while (!fs.existsSync(socket)) {
    if (daemon.exitCode !== null) throw new Error(`nydusd ended with ${daemon.exitCode}`)
    quit.signal.throwIfAborted()
    await sleep(10)
  }
  const quoted = entry.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  const script = path.join(work, 'script')
  fs.writeFileSync(script, `mount -t virtiofs -o ro image /mnt || exit 1
mount -t tmpfs none /run; mkdir /run/upper /run/work
mount -t overlay -o lowerdir=/mnt,upperdir=/run/upper,workdir=/run/work none /new || exit 1
mount -t devtmpfs none /new/dev 2>/dev/null; mount -t proc none /new/proc 2>/dev/null
echo "DEMO: booted"; PATH=/bin:/usr/bin:/usr/local/bin /bin/chroot /new ${quoted}; echo "DEMO: exit $?"
`)
  const guest = path.join(root, '.cache/guest')
  const second = spawnSync('cpio', ['-o', '-H', 'newc', '--quiet', '-R', '0:0'], { cwd: work, input: 'script\n' })
  fs.writeFileSync(path.join(work, 'initramfs'), Buffer.concat([fs.readFileSync(path.join(guest, 'initramfs')), second.stdout]))
  step(`booting a virtual machine (QEMU without acceleration) to run ${entry.join(' ').slice(0, 100)}`)
  const bootStart = performance.now()
  const machine = spawn('qemu-system-x86_64', ['-M', 'q35,memory-backend=mem', '-accel', 'tcg', '-m', '1024', '-object', 'memory-backend-memfd,id=mem,size=1024M,share=on',
    '-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot', '-kernel', path.join(guest, 'vmlinux'), '-initrd', path.join(work, 'initramfs'),
    '-append', 'console=ttyS0 quiet panic=-1', '-chardev', `socket,id=c0,path=${socket}`, '-device', 'vhost-user-fs-pci,chardev=c0,tag=image,queue-size=1024'], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(machine)
  const stop = () => machine.kill('SIGTERM')
  quit.signal.addEventListener('abort', stop)
  let console = ''
  const times = {}
  machine.stdout.setEncoding('utf8').on('data', (text) => {
    console += text
    for (const mark of ['booted', 'exit']) if (times[mark] === undefined && console.includes(`DEMO: ${mark}`)) times[mark] = performance.now()
  })
  const code = await new Promise((resolve) => machine.on('close', resolve))
  quit.signal.throwIfAborted()
  const output = /DEMO: booted\r?\n([\s\S]*?)DEMO: exit (\d+)/.exec(console)
  if (output?.[2] !== '0') throw new Error(`the machine ended with ${code}${output ? `, the program with ${output[2]}` : ''}:\n${console.slice(-2000)}`)
  return { output: output[1], mountMs: times.booted - bootStart, runMs: times.exit - times.booted }
}

async function main() {
  fs.mkdirSync(mountpoint)
  const layout = path.join(work, 'layout')
  let entry = command
  if (!image) {
    step('making an OCI image of this machine: a shell, Node with its libraries, npm')
    const program = await imageOfThisMachine(layout)
    if (!entry.length) entry = program
  } else {
    await writeLayout(layout, [], {})
    fs.writeFileSync(path.join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [] }))
  }
  const registry = await startRegistry(layout)
  const host = `127.0.0.1:${registry.port}`
  const source = image ?? `${host}/demo/node:latest`
  const target = `${host}/demo/node:nydus`

  step(`converting ${image ?? 'it'} to ${target}`)
  const convertStart = performance.now()
  await run(bin('nydusify'), ['convert', '--source', source, '--target', target, '--plain-http', '--work-dir', path.join(work, 'convert')], { stdio: ['ignore', 'pipe', 'inherit'] })
  const convertMs = performance.now() - convertStart

  const manifestUrl = `http://${host}/v2/demo/node/manifests/nydus`
  const manifest = await (await fetch(manifestUrl, { headers: { accept: 'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json' } })).json()
  const imageSize = manifest.layers.reduce((sum, layer) => sum + layer.size, 0)
  if (image && !entry.length) {
    const config = await (await fetch(`http://${host}/v2/demo/node/blobs/${manifest.config.digest}`)).json()
    entry = [...(config.config?.Entrypoint ?? []), ...(config.config?.Cmd ?? [])]
    if (!entry.length) entry = ['/bin/sh', '-c', 'echo hello from the image']
  }

  const before = fetched(registry.log)
  const { output, mountMs, runMs } = await (inMachine ? runInMachine({ host, manifest, entry }) : runInChroot(target, entry))
  const after = fetched(registry.log)
  const bytes = after.bytes - before.bytes
  const part = bytes / imageSize

  process.stdout.write(output)
  process.stdout.write([
    '',
    `image size        ${MiB(imageSize)} in ${manifest.layers.length} layers`,
    `converted in      ${seconds(convertMs)}`,
    `${inMachine ? 'booted in ' : 'mounted in'}        ${seconds(mountMs)}`,
    `program answered  ${seconds(runMs)} later`,
    `fetched by then   ${MiB(bytes)} in ${after.requests - before.requests} requests: ${(part * 100).toFixed(0)} % of the image`,
    '',
  ].join('\n'))
  if (!image && !(part < LAZY_LIMIT && part > 0)) throw new Error(`the registry's log shows ${(part * 100).toFixed(0)} % of the image fetched; lazily means less than ${LAZY_LIMIT * 100} %`)
}

/** Ends what was started, newest first, and leaves nothing behind. */
async function cleanUp() {
  for (const child of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGTERM')
    const gone = new Promise((resolve) => child.on('close', resolve))
    if (await Promise.race([gone.then(() => true), sleep(5000, false)])) continue
    child.kill('SIGKILL')
    await gone
  }
  if (fs.readFileSync('/proc/self/mounts', 'utf8').includes(` ${mountpoint} `)) spawnSync('umount', ['-l', mountpoint])
  fs.rmSync(work, { recursive: true, force: true })
}

try {
  await main()
} catch (error) {
  process.exitCode = quit.signal.aborted ? 130 : 1
  process.stderr.write(`quickstart: ${quit.signal.aborted ? 'interrupted' : error.message}\n`)
} finally {
  await cleanUp()
}

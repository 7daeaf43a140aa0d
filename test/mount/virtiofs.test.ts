// A real virtual machine whose files come through nydusd virtiofs, lazily from a registry.

import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { copyFileSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { bootGuest, guestIsThere } from '../support/guest.ts'
import { eventually, pause, Scratch, startNydusd } from '../support/nydusd.ts'
import { requires } from '../support/requires.ts'
import { killServer } from '../support/self-heal.ts'
import { stormImage, Supervised } from '../support/storm.ts'

const IMAGE_TOOL = path.resolve(import.meta.dirname, '../../bin/nydus-image')
const present = requires.root && requires.program('qemu-system-x86_64') && requires.that(guestIsThere(), 'needs a guest kernel (node scripts/guest.mjs)')

/** A machine reads everything so often, and so many servers are killed meanwhile. */
const KILLS = Number(process.env['STORM_ROUNDS'] ?? 3)
const PASSES = Array.from({ length: 1 + Math.floor(KILLS / 10) }, (_, pass) => pass)
const share = (scratch: Scratch): string => path.join(scratch.path, 'fs.sock')
const where = (scratch: Scratch): readonly string[] => ['virtiofs', '--sock', share(scratch)]

/** A registry that serves the blobs of a directory by range, and counts the bytes. */
async function registryOf(blobs: string): Promise<AsyncDisposable & { readonly config: (work: string) => string; readonly bytes: number }> {
  let bytes = 0
  const server = createServer((request, response) => {
    const id = /\/blobs\/sha256:([0-9a-f]{64})$/.exec(request.url ?? '')?.[1]
    const content = id !== undefined && readdirSync(blobs).includes(id) ? readFileSync(path.join(blobs, id)) : undefined
    const [, first, last] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []
    if (!content) response.writeHead(request.url === '/v2/' ? 200 : 404).end()
    else if (request.method === 'HEAD' || first === undefined) response.writeHead(200, { 'content-length': content.length }).end(request.method === 'HEAD' ? undefined : content)
    else {
      const part = content.subarray(Number(first), last ? Number(last) + 1 : undefined)
      bytes += part.length
      response.writeHead(206, { 'content-length': part.length, 'content-range': `bytes ${first}-${Number(first) + part.length - 1}/${content.length}` }).end(part)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    get bytes() { return bytes },
    config: (work) => JSON.stringify({
      device: { backend: { type: 'registry', config: { scheme: 'http', host: `127.0.0.1:${address.port}`, repo: 'guest' } }, cache: { type: 'blobcache', config: { work_dir: work } } },
      mode: 'direct', enable_xattr: true, fs_prefetch: { enable: false },
    }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A root file system with a shell, some data and much that nobody reads. */
function buildRoot(scratch: Scratch): { bootstrap: string; blobs: string; sums: ReadonlyMap<string, string> } {
  const root = path.join(scratch.path, 'root')
  const blobs = path.join(scratch.path, 'blobs')
  for (const directory of ['root/bin', 'root/data', 'root/unread', 'root/tmp', 'blobs']) mkdirSync(path.join(scratch.path, directory), { recursive: true })
  copyFileSync('/bin/busybox', path.join(root, 'bin/busybox'))
  const sums = new Map<string, string>()
  for (let i = 0; i < 40; i++) {
    const bytes = createHash('shake256', { outputLength: 1000 * (i + 1) }).update(`data ${i}`).digest()
    writeFileSync(path.join(root, `data/${i}`), bytes)
    sums.set(`data/${i}`, createHash('sha256').update(bytes).digest('hex'))
  }
  writeFileSync(path.join(root, 'unread/big'), createHash('shake256', { outputLength: 2 ** 24 }).update('unread').digest())
  const bootstrap = path.join(scratch.path, 'image.boot')
  execFileSync(IMAGE_TOOL, ['create', '--type', 'dir-rafs', '--fs-version', '6', '--compressor', 'zstd', '--bootstrap', bootstrap, '--blob-dir', blobs, root], { stdio: 'ignore' })
  return { bootstrap, blobs, sums }
}

function sumsOf(console: string): Map<string, string> {
  return new Map([...console.matchAll(/SUM ([0-9a-f]{64}) {2}\.?\/?(\S+)/g)].map(([, sum, name]) => [name!, sum!]))
}

describe.runIf(present)('a virtual machine over nydusd virtiofs', () => {
  it('runs a program the way Kata does: from an overlay of a shared directory and an image, mounted while it runs, lazily from a registry; again after a reboot', { timeout: 240_000 }, async () => {
    using scratch = new Scratch()
    const { bootstrap, blobs, sums } = buildRoot(scratch)
    await using registry = await registryOf(blobs)
    const container = path.join(scratch.path, 'containers', 'c1')
    for (const directory of ['fs', 'work']) mkdirSync(path.join(container, directory), { recursive: true })
    // as the runtime starts it, without the word virtiofs; RUNNING before there is a machine
    await using daemon = await startNydusd(scratch, ['--log-level', 'info'], { where: where(scratch).slice(1) })
    const mount = async (mountpoint: string, body: object): Promise<void> => expect(await daemon.ask('POST', `/api/v1/mount?mountpoint=${mountpoint}`, JSON.stringify(body))).toMatchObject({ status: 204 })
    await mount('/containers', { fs_type: 'passthrough_fs', source: path.dirname(container), config: '' })
    await using guest = bootGuest(`
mkdir -p /run/kata; mount -t virtiofs kata /run/kata && cd /run/kata || echo no mount
echo waiting; read go
mount -t overlay -o lowerdir=rafs/c1/lowerdir,upperdir=containers/c1/fs,workdir=containers/c1/work none /new
chroot /new /bin/busybox sh -c 'cd /; /bin/busybox sha256sum data/* | /bin/busybox sed "s/^/SUM /"; echo READ $(/bin/busybox cat /tmp/file)
  echo written > /tmp/file; b=/bin/busybox; $b rm data/0; $b mv data/1 data/moved; $b ln data/2 data/linked; $b mkdir -p new/d; $b chmod 600 data/3; $b chown 7:8 data/4; $b sync'
umount /new; cd /; umount /run/kata; echo ask; read answer; [ "$answer" = again ] && reboot -f`, { shares: { kata: share(scratch) }, mayReboot: true })
    await guest.appeared('waiting')
    await mount('/rafs/c1/lowerdir', { fs_type: 'rafs', source: bootstrap, config: registry.config(scratch.cache) })
    guest.type('\n')
    await guest.appeared('ask')
    expect(sumsOf(guest.console())).toEqual(sums)
    const upper = (...names: string[]): string => path.join(container, 'fs', ...names)
    expect(readFileSync(upper('tmp/file'), 'utf8')).toBe('written\n')
    expect(lstatSync(upper('data/0'))).toMatchObject({ rdev: 0, mode: 0o020000 }) // a whiteout
    expect([statSync(upper('data/3')).mode & 0o777, statSync(upper('data/4')).uid, statSync(upper('data/4')).gid, statSync(upper('data/linked')).nlink, readdirSync(upper('new'))]).toEqual([0o600, 7, 8, 2, ['d']])
    const afterFirst = registry.bytes
    expect(afterFirst).toBeGreaterThan(100_000)
    expect(afterFirst).toBeLessThan(statSync(path.join(blobs, readdirSync(blobs)[0]!)).size / 2)
    const before = guest.console().length
    const again = async (what: string): Promise<void> => await eventually(() => guest.console().slice(before).includes(what), what, 60_000)
    guest.type('again\n')
    await again('waiting')
    guest.type('\n')
    await again('ask')
    const changed = new Map([...sums, ['data/moved', sums.get('data/1')!], ['data/linked', sums.get('data/2')!]])
    for (const name of ['data/0', 'data/1']) changed.delete(name)
    expect(sumsOf(guest.console().slice(before))).toEqual(changed)
    expect(guest.console()).toMatch(/READ written/)
    expect(registry.bytes).toBe(afterFirst)
    expect(await daemon.ask('DELETE', '/api/v1/mount?mountpoint=/rafs/c1/lowerdir')).toMatchObject({ status: 204 })
    const stopped = Date.now()
    daemon.child.kill('SIGTERM') // while the machine is there
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect(Date.now() - stopped).toBeLessThan(5000)
    expect(readdirSync(scratch.path)).not.toContain('fs.sock')
  })

  it('sees images come and go below one export, as Kata mounts them, on several queues, and nothing of servers that are killed, continued and upgraded while it reads', { timeout: 240_000 }, async () => {
    using scratch = new Scratch()
    const storm = stormImage(scratch, { cached: false })
    const [, bootstrap, , config] = storm.args
    const tree = expectOfCase('v6-rich-zstd')!.filter(({ type, path: name }) => type === 'reg' && /^[\x21-\x7e]+$/.test(name))
    await using daemon = await startNydusd(scratch, ['--self-heal', '--run-dir', path.join(scratch.path, 'run')], { where: where(scratch) })
    const shared = path.join(scratch.path, 'shared')
    mkdirSync(shared)
    expect(await daemon.ask('POST', '/api/v1/mount?mountpoint=/containers', JSON.stringify({ fs_type: 'passthrough_fs', source: shared, config: '' }))).toMatchObject({ status: 204 })
    using second = new Scratch() // another share of the same machine, whose daemon has a supervisor
    await using supervised = await Supervised.start(second, storm.args, { where: where(second) })
    await using guest = bootGuest(`
mount -t virtiofs kata /mnt; mkdir /other; mount -t virtiofs -o ro other /other; echo; echo mounted; cd /mnt/containers; exec 3>>log
read go; cd /mnt/rafs/1/lowerdir && find . -type f | sort | while read -r f; do echo "SUM $(sha256sum "$f")"; done
cd /; echo; echo summed; read go
for pass in ${PASSES.join(' ')}; do
  echo 3 > /proc/sys/vm/drop_caches
  cd /mnt/rafs/2/lowerdir && find . -type f | sort | while read -r f; do echo "SUM $(sha256sum "$f").$pass"; (cd /other; echo "SUM $(sha256sum "$f").$pass.other")
    case $f in *[05]) ;; *) continue ;; esac
    w=/mnt/containers; n=$pass-\${f##*/}; mkdir $w/$n && mv $w/$n $w/moved-$n && echo $n >&3 && ln $w/log $w/link-$n && rm $w/link-$n || echo "FAILED $n"; done
done
cd /; echo; echo stormed; read go; ls /mnt/rafs 2>&1 | head -1; echo; echo looked`, { shares: { kata: share(scratch), other: share(second) }, queues: 2 })
    await guest.appeared('\nmounted')
    const mount = async (mountpoint: string, source: string, text: string): Promise<void> =>
      expect(await daemon.ask('POST', `/api/v1/mount?mountpoint=${mountpoint}`, JSON.stringify({ fs_type: 'rafs', source, config: text }))).toMatchObject({ status: 204 })
    await mount('/rafs/2/lowerdir', bootstrap!, readFileSync(config!, 'utf8'))
    await mount('/rafs/1/lowerdir', path.join(VECTORS, 'v6-rich-zstd/image.boot'), readFileSync(scratch.config(), 'utf8'))
    guest.type('\n')
    await guest.appeared('\nsummed')
    const seen = sumsOf(guest.console())
    expect(tree.filter((entry) => seen.get(entry.path.slice(1)) !== entry.sha256).map((entry) => entry.path)).toEqual([])
    const before = guest.console().length
    guest.type('\n')
    let kills = 0
    const isDone = (): boolean => guest.console().slice(before).includes('\nstormed')
    while (kills < KILLS && !isDone()) {
      await pause(50 + Math.random() * 200)
      await killServer(daemon, async (server) => {
        if (kills++ % 2 === 1) return
        process.kill(server, 'SIGSTOP') // what the machine asks now, nobody has seen when the server is killed
        await pause(50)
      })
      await (kills % 2 === 0 ? supervised.upgrade() : supervised.failover())
    }
    await eventually(isDone, 'the machine has read everything', 120_000)
    const read = sumsOf(guest.console().slice(before))
    const wanted = new Map(readdirSync(storm.source, { recursive: true, encoding: 'utf8' }).filter((name) => name.includes('file')).flatMap((name) =>
      PASSES.flatMap((pass) => [`${pass}`, `${pass}.other`]).map((end) => [`${name}.${end}`, createHash('sha256').update(readFileSync(path.join(storm.source, name))).digest('hex')] as const)))
    console.log(`a real machine: ${kills} servers killed, ${kills} daemons replaced under a supervisor while it read ${wanted.size} files`)
    expect(read).toEqual(wanted)
    expect(guest.console()).not.toMatch(/FAILED/)
    const done = [...wanted.keys()].filter((name) => /[05]\.\d+$/.test(name)).map((name) => name.replace(/^.*?([^/]*)\.(\d+)$/, '$2-$1')).sort() // each once, and in whole
    expect(readFileSync(path.join(shared, 'log'), 'utf8').trim().split('\n').sort()).toEqual(done)
    expect(readdirSync(shared).filter((name) => name !== 'log').sort()).toEqual(done.map((name) => `moved-${name}`))
    expect(kills).toBeGreaterThan(1)
    for (const number of [1, 2]) expect(await daemon.ask('DELETE', `/api/v1/mount?mountpoint=/rafs/${number}/lowerdir`)).toMatchObject({ status: 204 })
    guest.type('\n')
    await guest.appeared('\nlooked')
    expect(guest.console()).toMatch(/No such file/)
    await guest.ended
  })
})

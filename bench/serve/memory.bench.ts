// Memory of a daemon, proportional set size in MiB: idle, after every inode was listed, after every byte was read; for images of different sizes,
// since it must not grow with inodes. Then one daemon with 100 mounts through its API, and 100 machines over virtiofs with one server. Beside upstream's daemon. One run each: memory does not vary
// as time does.
//   NYDUS_PEER_NYDUSD=/path/of/nydusd node bench/run.mjs serve/memory

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { sha256Of } from '../../test/support/guest-files.ts'
import { serverOn } from '../../test/support/self-heal.ts'
import { TestFrontEnd } from '../../test/support/vhost-front-end.ts'
import { apiReady, isMounted, type Server, servers, Stage, waitFor } from './stage.ts'

const MOUNTS = 100
const SIZES = [10_000, 100_000]

/** PSS without the page cache's share: what is anonymous is the daemon's alone. */
function pss(pid: number): { pssMiB: number; anonMiB: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
  const field = (name: string): number => Math.round(Number(new RegExp(`^${name}: *(\\d+)`, 'm').exec(text)![1]) / 102.4) / 10
  return { pssMiB: field('Pss'), anonMiB: field('Pss_Anon') }
}

function makeTree(inodes: number): (directory: string) => void {
  return (directory) => {
    for (let d = 0; d < inodes / 200; d++) {
      mkdirSync(path.join(directory, `directory-${d}`))
      for (let f = 0; f < 200; f++) writeFileSync(path.join(directory, `directory-${d}`, `file-${f}`), `${d} ${f}\n`)
    }
  }
}

function request(socket: string, method: string, url: string, body?: string): void {
  execFileSync('curl', ['-sSf', '--unix-socket', socket, '-X', method, ...(body === undefined ? [] : ['-d', body]), `http://localhost${url}`], { stdio: 'ignore' })
}

/** One daemon, the image mounted `MOUNTS` times below its mountpoint. */
function manyMounts(stage: Stage, server: Server): object {
  const socket = path.join(stage.path, `${server.name}.sock`)
  const daemon = spawn(server.program, ['--mountpoint', stage.mountpoint, '--apisock', socket, ...server.args], { stdio: 'ignore' })
  try {
    waitFor(() => isMounted(stage.mountpoint) && apiReady(socket))
    const before = pss(daemon.pid!)
    const config = readFileSync(stage.config(server), 'utf8')
    for (let i = 0; i < MOUNTS; i++) request(socket, 'POST', `/api/v1/mount?mountpoint=/m${i}`, JSON.stringify({ fs_type: 'rafs', source: stage.bootstrap, config }))
    const mounted = pss(daemon.pid!)
    for (let i = 0; i < MOUNTS; i++) execFileSync('sh', ['-c', `ls -l m${i}/directory-${i % 50} > /dev/null`], { cwd: stage.mountpoint })
    const used = pss(daemon.pid!)
    return { before, mounted, used, perMountMiB: Math.round((used.pssMiB - before.pssMiB) * 100 / MOUNTS) / 100 }
  } finally {
    daemon.kill('SIGTERM')
    waitFor(() => !isMounted(stage.mountpoint))
  }
}

/** A daemon for each of many machines, all with one server (`virtiofs --server`): every machine has listed and read something. Ours only. */
function manyMachines(stage: Stage, server: Server): object {
  const shared = path.join(stage.path, 'server')
  const config = stage.config(server)
  const machines = Array.from({ length: MOUNTS }, (_, i) => {
    const share = path.join(stage.path, `${i}.sock`)
    const api = path.join(stage.path, `${i}.api`)
    return { share, api, daemon: spawn(server.program, ['virtiofs', '--server', shared, '--sock', share, '--apisock', api, '--bootstrap', stage.bootstrap, '--config', config, ...server.args], { stdio: 'ignore' }) }
  })
  const guests: TestFrontEnd[] = []
  try {
    for (const { share, api } of machines) {
      waitFor(() => apiReady(api))
      const guest = new TestFrontEnd(share, { memoryBytes: 2 ** 21 })
      guests.push(guest)
      guest.start()
      guest.init()
      sha256Of(guest, 'directory-0/file-0')
    }
    const serverMiB = pss(serverOn(shared)!).pssMiB
    const holdersMiB = machines.reduce((sum, { daemon }) => sum + pss(daemon.pid!).pssMiB, 0)
    return { totalMiB: Math.round(serverMiB + holdersMiB), serverMiB }
  } finally {
    for (const guest of guests) guest[Symbol.dispose]()
    for (const { daemon } of machines) daemon.kill('SIGTERM')
    waitFor(() => machines.every(({ api }) => !existsSync(api)))
    const pid = serverOn(shared)
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  }
}

const results: Record<string, object> = {}
delete process.env['BENCH_TREE']
for (const inodes of SIZES) {
  using stage = new Stage(makeTree(inodes))
  for (const server of servers) {
    results[`${server.name}, ${inodes} inodes`] = stage.serve(server, (pid) => {
      const idle = pss(pid)
      const run = (command: string): ReturnType<typeof pss> => {
        execFileSync('sh', ['-c', command], { cwd: stage.mountpoint, stdio: 'ignore' })
        return pss(pid)
      }
      return { idle, listed: run('find . -ls > /dev/null'), read: run('tar c . | cat > /dev/null') }
    })
    if (inodes !== SIZES[0]) continue
    if (server.name === servers[0]!.name) results[`${server.name}, ${MOUNTS} machines over virtiofs`] = manyMachines(stage, server)
    try {
      results[`${server.name}, ${MOUNTS} mounts`] = manyMounts(stage, server)
    } catch (error) {
      results[`${server.name}, ${MOUNTS} mounts`] = { failed: String(error) }
    }
  }
}
process.stdout.write(`${JSON.stringify({ bench: 'serve/memory', node: process.version, results }, null, 2)}\n`)

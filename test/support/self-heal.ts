// The server behind the holder of a daemon, and its end.

import { readdirSync, readFileSync } from 'node:fs'
import { eventually, type RunningDaemon } from './nydusd.ts'
import { clock } from './readers.ts'

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ').filter((word) => word !== '').map(Number)
}

/** The server behind a holder. */
export async function serverOf(daemon: RunningDaemon): Promise<number> {
  await eventually(() => childrenOf(daemon.pid).length === 1, 'there is a server')
  return childrenOf(daemon.pid)[0]!
}

export async function isRunning(daemon: RunningDaemon): Promise<boolean> {
  return await daemon.ask('GET', '/api/v1/daemon').then(({ body }) => JSON.stringify(body).includes('"state":"RUNNING"'), () => false)
}

/** Kills the server, does `meanwhile` without waiting for anything, and waits for the next one. The moment of the kill, by the readers' clock. */
export async function killServer(daemon: RunningDaemon, before: (pid: number) => Promise<void> = async () => {}, meanwhile: () => void = () => {}): Promise<number> {
  const server = await serverOf(daemon)
  await before(server)
  const at = clock()
  process.kill(server, 'SIGKILL')
  meanwhile()
  await eventually(() => isRunning(daemon), 'the next server answers', 30_000)
  return at
}

/** The server of many holders on `socket`. */
export function serverOn(socket: string): number | undefined {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).find((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')
      return words[0] === 'node' && words[2] === '--holders' && words[3] === socket
    } catch {
      return false // gone
    }
  })
}

/** Proportional set size, MiB. */
export function pssOf(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1]) / 1024
}

// Faults that lie in the machine of the daemon rather than in the registry: names that do not resolve, no descriptor left, a clock that jumps.

import { execFileSync } from 'node:child_process'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { startDnsServer } from './dns-server.ts'
import type { FaultCase } from './fault-case.ts'
import { type Answering, type Fault, startFaultServer } from './fault-server.ts'

const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusd')
const NAME = 'registry.nydus-test.internal'
const DAY_MS = 86_400_000
/** Fewer than any process of Node has open, so that nothing new can be opened. */
const NO_MORE_FILES = 8
/** What was sent before the limit arrives within this time. */
const ON_THE_WAY_MS = 300

/**
 * The registry's own name does not resolve any more, and no connection is left. The daemon has a name server of its own, in a name space of its own, where
 * its readers join it.
 */
export const noName: FaultCase = {
  name: 'a name that does not resolve any more',
  async begin({ server, directory }) {
    const dns = await startDnsServer()
    const [resolv, program] = ['resolv.conf', 'nydusd'].map((name) => path.join(directory, name))
    writeFileSync(resolv!, `nameserver ${dns.address}\noptions timeout:1 attempts:1\n`)
    writeFileSync(program!, `#!/bin/sh\nexec unshare -m sh -c 'mount --bind ${resolv} /etc/resolv.conf && exec ${PROGRAM} "$@"' sh "$@"\n`)
    chmodSync(program!, 0o755)
    let isReading = false
    // the server sees whom it loses: after that only the name server can count them
    server.fault = ({ request }) => {
      dns.isBroken = true
      request.socket.destroy()
    }
    return {
      registry: { host: `${NAME}:${server.host.split(':')[1]}` }, program: program!,
      hit: { get prefetch() { return dns.failed > 0 ? server.hit.prefetch : 0 }, get demand() { return isReading ? dns.failed : 0 } },
      reading(pid) {
        isReading = true
        Object.assign(dns, { failed: 0 })
        return ['nsenter', '-m', '-t', String(pid)]
      },
      end() {
        server.fault = undefined
        dns.isBroken = false
      },
      async close() { await dns[Symbol.asyncDispose]() },
    }
  },
}

/** Readers and the prefetch lose their connections when the daemon may not open another one. */
export const noDescriptor: FaultCase = {
  name: 'the limit of open files reached',
  async begin({ server }) {
    let pid = 0
    let usual = ''
    let limitedAt = Number.POSITIVE_INFINITY
    let arrived = 0
    const limit = (soft: string): void => { execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]) }
    server.fault = ({ request }) => {
      if (performance.now() > limitedAt + ON_THE_WAY_MS) arrived++
      request.socket.destroy()
      if (usual !== '' || pid === 0 || server.hit.demand === 0 || server.hit.prefetch === 0) return
      usual = /Max open files\s+(\d+)/.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))![1]!
      limit(String(NO_MORE_FILES))
      limitedAt = performance.now()
    }
    return {
      started: (daemon) => { pid = daemon },
      end() {
        if (usual === '') throw new Error('the limit was never set')
        if (arrived > 0) throw new Error(`${arrived} requests came from a daemon without descriptors`)
        server.fault = undefined
        limit(usual)
      },
    }
  },
}

/** The clock jumps by a day, forwards and backwards, with every request; what the server says of time is by its own. */
export const clockJumps: FaultCase = {
  name: 'a clock that jumps',
  async begin({ server, directory }) {
    const clock = path.join(directory, 'clock')
    writeFileSync(clock, '0')
    let issued = 0
    const expiresAt = new Map<string, number>()
    server.gate = (request, response) => {
      if (request.url?.startsWith('/token')) {
        expiresAt.set(`t${issued}`, Date.now() + 2000)
        response.writeHead(200).end(JSON.stringify({ token: `t${issued++}`, expires_in: 2, issued_at: new Date().toISOString() }))
        return true
      }
      if ((expiresAt.get(request.headers.authorization?.replace('Bearer ', '') ?? '') ?? 0) > Date.now()) return false
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${server.host}/token",service="x",scope="repository:a/b:pull"` }).end()
      return true
    }
    const jumped = new Set<number>()
    server.fault = ({ response, offset, right }) => {
      writeFileSync(clock, String(jumped.size % 2 === 0 ? -DAY_MS : DAY_MS))
      setTimeout(() => {
        if (jumped.has(offset)) right()
        else response.writeHead(503, { 'retry-after': new Date(Date.now() + 1000).toUTCString() }).end()
        jumped.add(offset)
      }, 60) // the daemon looks at its clock meanwhile
    }
    return {
      env: { NODE_OPTIONS: `--import ${path.join(import.meta.dirname, 'shifted-clock.mjs')}`, NYDUS_TEST_CLOCK: clock },
      end: () => { server.fault = undefined },
    }
  },
}

/** A mirror that is asked first fails for good; the registry itself has everything. */
export function mirrorThatFails(name: string, fault: Fault): FaultCase {
  return {
    name: `a mirror with ${name}, for long`, lasts: true,
    async begin({ server, image }) {
      const origin = await startFaultServer(image)
      // it is left out as soon as it has failed: so it fails when both wait for it
      const held: Answering[] = []
      server.fault = (answering) => {
        held.push(answering)
        if (server.hit.demand > 0 && server.hit.prefetch > 0) for (const one of held.splice(0)) fault(one)
      }
      return {
        registry: { host: origin.host, mirrors: [{ host: `http://${server.host}` }] },
        end: () => { server.fault = undefined },
        async close() { await origin[Symbol.asyncDispose]() },
      }
    },
  }
}

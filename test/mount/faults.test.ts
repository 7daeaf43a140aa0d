// The fault matrix: whatever the network does, readers get right bytes or an error in time, and everything once it is over. All cases run side by side.
// NYDUS_FAULTS=whole (scripts/faults.sh): every fault also for longer than a read waits. Beside them a daemon works for SOAK_MINUTES (scripts/soak.sh: longer).

import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { beforeAll, describe, expect, it } from 'vitest'
import { AUTH, faultImage, runCase, type CaseContext, type FaultCase, type FaultImage, type Outcome } from '../support/fault-case.ts'
import { FAULTS, rangeOf, startFaultServer, type Fault } from '../support/fault-server.ts'
import { clockJumps, mirrorThatFails, noDescriptor, noName } from '../support/local-faults.ts'
import { pause } from '../support/nydusd.ts'
import { shown, soak, type SoakResult } from '../support/soak.ts'

const isWhole = process.env['NYDUS_FAULTS'] === 'whole'
/** LIMIT: daemons at once; each is two processes and a mount. */
const AT_ONCE = 8
/** What the promise allows one read, with the default configuration. */
const LONGEST_READ_S = 20

/** `fault` in the server until `end`. */
const inServer = (name: string, fault: Fault, lasts = false): FaultCase => ({
  name, lasts,
  begin: async ({ server }) => { server.fault = fault; return { end: () => { server.fault = undefined } } },
})

/** Each range is damaged once; what is asked for again is right. */
const corruptOnce: FaultCase = {
  name: 'corrupt once',
  async begin({ server }) {
    const done = new Set<number>()
    server.fault = (answering) => {
      const isFirst = !done.has(answering.offset)
      done.add(answering.offset)
      if (isFirst) FAULTS['corrupt bodies']!(answering)
      else answering.right()
    }
    return { end: () => { server.fault = undefined } }
  },
}

/** Another host has the blob, and must not be told the password. */
const redirectElsewhere: FaultCase = {
  name: 'redirects to another host',
  async begin({ server, image }: CaseContext) {
    const elsewhere = await startFaultServer(image)
    server.gate = (request, response) => {
      if (request.headers.authorization === `Basic ${AUTH}`) return false
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      return true
    }
    server.fault = ({ request, response }) => void response.writeHead(307, { location: `http://${elsewhere.host}${request.url}` }).end()
    // the registry is asked once: where it leads is remembered
    return {
      end: () => {}, hit: elsewhere.requests,
      async close() {
        expect([...elsewhere.authorizations]).toEqual([undefined])
        expect(elsewhere.requests.demand).toBeGreaterThan(0)
        await elsewhere[Symbol.asyncDispose]()
      },
    }
  },
}

/** Tokens are good for two requests, whatever their service says. */
const expiredTokens: FaultCase = {
  name: 'expired tokens',
  async begin({ server, image }) {
    const hit = { demand: 0, prefetch: 0 }
    const left = new Map<string, number>()
    server.gate = (request, response) => {
      if (request.url?.startsWith('/token')) {
        left.set(`t${left.size}`, 2)
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token: `t${left.size - 1}`, expires_in: 300 }))
        return true
      }
      const range = rangeOf(request)
      const lane = range === undefined ? 'other' : image.laneOf(range)
      const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
      const uses = left.get(token) ?? 0
      left.set(token, uses - 1)
      // few requests are made, so the first one of each kind meets an expired token whatever its number is
      if (uses > 0 && (lane === 'other' || hit[lane] > 0)) return false
      if (lane !== 'other') hit[lane]++
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${server.host}/token",service="x",scope="repository:a/b:pull"` }).end()
      return true
    }
    return { end: () => {}, hit }
  },
}

const restart: FaultCase = {
  name: 'a registry that restarts',
  async begin({ server }) {
    server.fault = FAULTS['an answer that never comes']
    return {
      async end() {
        await server.stop()
        await pause(2000)
        server.fault = undefined
        await server.start()
      },
    }
  },
}

const dyingProxy: FaultCase = {
  name: 'a proxy that dies',
  async begin({ server, image }) {
    const hit = { demand: 0, prefetch: 0 }
    const held: ServerResponse[] = []
    const proxy = createServer((request, response) => {
      const range = rangeOf(request)
      const lane = range === undefined ? 'other' : image.laneOf(range)
      if (lane === 'other' || request.method === 'HEAD') {
        void fetch(request.url!, { headers: request.headers.range === undefined ? {} : { range: request.headers.range }, method: request.method! }).then(async (answer) => {
          response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(Buffer.from(await answer.arrayBuffer()))
        }).catch(() => response.destroy())
        return
      }
      hit[lane]++
      held.push(response)
    })
    await new Promise<void>((resolve) => { proxy.listen(0, '127.0.0.1', resolve) })
    const stop = async (): Promise<void> => { proxy.closeAllConnections(); await new Promise((resolve) => { if (proxy.listening) proxy.close(resolve); else resolve(undefined) }) }
    return { hit, registry: { host: server.host, proxy: { url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` } }, end: stop, close: stop }
  },
}

/** Longer than any read waits: errors, in time. */
const lasting = (isWhole ? Object.keys(FAULTS) : ['an answer that never comes']).map((name) => inServer(`${name}, for long`, FAULTS[name]!, true))
/** The same, but another copy exists. */
const mirrored = (isWhole ? Object.keys(FAULTS) : ['an answer that never comes', 'corrupt bodies']).map((name) => mirrorThatFails(name, FAULTS[name]!))
const passing = [...Object.entries(FAULTS).map(([name, fault]) => inServer(name, fault)), corruptOnce, redirectElsewhere, expiredTokens, restart, dyingProxy, noName, noDescriptor, clockJumps]
const cases = [...lasting, ...mirrored, ...passing]
/** A chunk that is wrong twice is an error: it would be wrong the third time, too. */
const mayFail = new Set(['corrupt bodies', ...lasting.map(({ name }) => name)])

const outcomes = new Map<string, Outcome | Error>()
const MINUTES = Number(process.env['SOAK_MINUTES'] ?? (isWhole ? 0 : 1))
/** What the second half of the time may take more than the first; the heap of a daemon that is a minute old still finds its size. */
const GROWTH = { pss: MINUTES < 10 ? 1.25 : 1.05, descriptors: 1.05, threads: 1.05 }
let soaked: SoakResult | Error | undefined

beforeAll(async () => {
  const soaking = MINUTES === 0 ? undefined : soak({ minutes: MINUTES, log: (line) => void process.stderr.write(`${line}\n`) }).catch((error: unknown) => error instanceof Error ? error : new Error(String(error)))
  const image: FaultImage = await faultImage()
  const only = process.env['NYDUS_FAULT']
  const queue = cases.filter(({ name }) => only === undefined || name === only)
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const one = next
      const began = performance.now()
      const run = () => runCase(image, one).catch((error: unknown) => error instanceof Error ? error : new Error(String(error)))
      let outcome = await run()
      // on a machine that is too busy the fault may be over before it hits anybody: that says nothing, and is tried again
      for (let again = 0; again < 2 && outcome instanceof Error && outcome.message.startsWith('not within'); again++) outcome = await run()
      outcomes.set(one.name, outcome)
      if (process.env['NYDUS_FAULTS_VERBOSE']) process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1)} s  ${one.name}: ${outcome instanceof Error ? outcome.message : JSON.stringify({ ...outcome, authorizations: undefined })}\n`)
    }
  }))
  soaked = await soaking
}, (isWhole ? 1_800_000 : 400_000) + MINUTES * 60_000)

describe('a mount whose registry gives', () => {
  it.each(cases.map(({ name }) => name))('%s: right bytes or an error in time, and all of them once it is over', (name) => {
    const outcome = outcomes.get(name)
    if (outcome === undefined || outcome instanceof Error) throw outcome ?? new Error('it did not run')
    const { hit, during, after } = outcome
    expect(hit.demand, 'readers that were hit').toBeGreaterThan(0)
    expect(hit.prefetch, 'prefetches that were hit').toBeGreaterThan(0)
    expect([during.wrong, after.wrong], 'wrong bytes').toEqual([[], []])
    expect(Math.max(during.longest, after.longest), 'seconds of the longest read').toBeLessThan(LONGEST_READ_S)
    if (!mayFail.has(name)) expect(during.errors, 'errors of a fault that passes').toEqual([])
    expect(after.errors, 'errors when it is over').toEqual([])
    expect(after.right).toBe(4 * 21)
  })
})

it.skipIf(MINUTES === 0)('a daemon that mounts, unmounts, reads and meets faults keeps its memory, descriptors and threads, and shows no wrong byte', () => {
  if (soaked === undefined || soaked instanceof Error) throw soaked ?? new Error('it did not run')
  const { halves: [first, second], peak, wrong, ...counts } = soaked
  console.log(`soak: ${shown(first)}, then ${shown(second)}; peak ${shown(peak)}; ${JSON.stringify(counts)}`)
  expect(wrong).toEqual([])
  expect(counts.mounts).toBeGreaterThan(10 * MINUTES)
  expect(counts.reads).toBeGreaterThan(50 * MINUTES)
  expect(counts.faults).toBeGreaterThan(10 * MINUTES)
  for (const key of ['pss', 'descriptors', 'threads'] as const) expect(second[key], key).toBeLessThanOrEqual(first[key] * GROWTH[key])
})

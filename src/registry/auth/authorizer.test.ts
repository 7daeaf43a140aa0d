import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { answer, startFaultRegistry } from '../../../test/support/fault-registry.ts'
import { blobOf, contentOf, makeImage, pushImage, QUICK_RETRY, temporaryDirectory } from '../../../test/support/images.ts'
import { startTokenRegistry, type TokenPolicy, type TokenRegistry } from '../../../test/support/token-registry.ts'
import { subscribe } from '../../core/diagnostics.ts'
import { createRangeFetcher, openSource, openTarget, type Credentials, type OpenOptions } from '../index.ts'

const USER: Credentials & { kind: 'password' } = { kind: 'password', username: 'user', password: 'hunter2-secret' }
const basicOf = (password: string): string => `Basic ${Buffer.from(`user:${password}`).toString('base64')}`
const BASIC = `Basic ${Buffer.from('user:hunter2-secret').toString('base64')}`

async function bench(policy: TokenPolicy, use: (bench: TokenRegistry & { options: OpenOptions; signal: AbortSignal }) => Promise<void>, credentials: Credentials | undefined = USER): Promise<void> {
  await using directory = await temporaryDirectory()
  await using tokens = await startTokenRegistry(directory.path, policy)
  const signal = AbortSignal.timeout(20_000)
  await use({ ...tokens, signal, options: { signal, plainHttp: true, retry: QUICK_RETRY, env: { HOME: directory.path }, credentials, pieceSize: 50_000 } })
}

describe('bearer tokens', () => {
  it('are fetched once for all layers that are pushed at once, with the push scope', () => bench({ issue: () => ({}) }, async ({ registry, asked, options, signal }) => {
    const image = makeImage([1000, 2000, 3000, 4000])
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    await Promise.all(image.layers.map(({ descriptor, bytes }) => target.pushBlob(descriptor, contentOf(bytes), { signal })))
    await pushImage(target, image, signal)
    expect(asked.length).toBe(1)
    expect(asked[0]!.query.getAll('scope')).toContain('repository:a/b:pull,push')
    expect(asked[0]!.query.get('service')).toBe('reg')
    expect(asked[0]!.authorization).toBe(BASIC)
  }))

  it('that the registry stops taking in the middle of a push are renewed', () => bench({ issue: () => ({}), requestsPerToken: 2 }, async ({ registry, asked, options, signal }) => {
    const image = makeImage([200_000, 10])
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    await pushImage(target, image, signal)
    expect(asked.length).toBeGreaterThan(3)
  }))

  it('are renewed before they expire', () => bench({ issue: () => ({ expires_in: 0.2 }) }, async ({ registry, asked, options, signal }) => {
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    const { descriptor } = blobOf(randomBytes(10), 'x/y')
    await target.hasBlob(descriptor, { signal })
    await new Promise((resolve) => { setTimeout(resolve, 250) })
    await target.hasBlob(descriptor, { signal })
    expect(asked.length).toBe(2)
    expect(registry.seen.filter(({ url }) => url.includes('/blobs/')).length).toBe(3) // the first taught the scheme; no 401 for the third
  }))

  it('are renewed beside their use: no request waits for it', () => bench({ issue: () => ({ expires_in: 3 }) }, async ({ registry, asked, options, signal }) => {
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    const { descriptor } = blobOf(randomBytes(10), 'x/y')
    await target.hasBlob(descriptor, { signal })
    await new Promise((resolve) => { setTimeout(resolve, 1600) })
    await target.hasBlob(descriptor, { signal }) // still with the first one
    const used = (): unknown => registry.seen.filter(({ url }) => url.includes('/blobs/')).at(-1)!.headers.authorization
    expect(used()).toBe('Bearer token-1')
    for (let i = 0; i < 100 && asked.length < 2; i++) await new Promise((resolve) => { setTimeout(resolve, 20) })
    await target.hasBlob(descriptor, { signal })
    expect(used()).toBe('Bearer token-2')
    expect(asked.length).toBe(2)
  }))

  it('that are answered with 403 are taken for expired, once', () => bench({ issue: () => ({}) }, async ({ registry, asked, options, signal }) => {
    await using fetcher = createRangeFetcher({ host: registry.host, repository: 'a/b' }, { ...options, retry: { attempts: 1, baseMs: 1, maxMs: 1 } })
    const digest = `sha256:${'1'.repeat(64)}` as const
    registry.fault({ match: /^HEAD .*blobs/, act: answer(403) })
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    expect(asked.length).toBe(2)
    registry.fault({ match: /^HEAD .*blobs/, act: answer(403), times: 9 })
    await expect(fetcher.exists(digest, { signal })).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    expect(asked.length).toBe(3)
  }))

  it('come by POST for an identity token, and keep the refresh token that comes with them', () => bench({ issue: () => ({ refresh_token: 'next', expires_in: 0.1 }) }, async ({ registry, asked, options, signal }) => {
    await using target = await openTarget(`${registry.host}/a/b:1`, options)
    const { descriptor } = blobOf(randomBytes(10), 'x/y')
    await target.hasBlob(descriptor, { signal })
    await new Promise((resolve) => { setTimeout(resolve, 120) })
    await target.hasBlob(descriptor, { signal })
    expect(asked.map(({ method, form }) => [method, form.get('grant_type'), form.get('refresh_token')])).toEqual([
      ['POST', 'refresh_token', 'identity-1'], ['POST', 'refresh_token', 'next']])
  }, { kind: 'identity', token: 'identity-1' }))

  it('come by POST where GET is not known', () => bench({ issue: ({ method }) => method === 'GET' ? 405 : {} }, async ({ registry, asked, options, signal }) => {
    await using source = await openSource(`${registry.host}/a/b:1`, options)
    await expect(source.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    expect(asked[1]!.form.get('username')).toBe('user')
  }))

  it('are anonymous without credentials', () => bench({ issue: () => ({}) }, async ({ registry, asked, options, signal }) => {
    await using source = await openSource(`${registry.host}/a/b:1`, { ...options, credentials: undefined })
    await expect(source.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    expect(asked[0]!.authorization).toBe(undefined)
  }))

  it('that are refused are an error in which no secret stands', () => bench({ issue: () => 401 }, async ({ registry, options, signal }) => {
    const shown: string[] = []
    const stops = (['registry:request:done', 'registry:request:retry'] as const).map((name) => subscribe(name, (event) => shown.push(JSON.stringify(event))))
    await using source = await openSource(`${registry.host}/a/b:1`, options)
    const error = await source.resolve({ signal }).catch((reason: unknown) => reason)
    for (const stop of stops) stop()
    expect(error).toMatchObject({ code: 'REGISTRY_DENIED' })
    const text = `${String(error)} ${JSON.stringify(error)} ${shown.join()}`
    expect(text).not.toContain('hunter2')
    expect(text).not.toContain(BASIC.slice(6))
  }))

  it('that the registry quotes back do not reach the message', () => bench({ issue: () => ({}), requestsPerToken: 0 }, async ({ registry, options, signal }) => {
    await using source = await openSource(`${registry.host}/a/b:1`, options)
    const error = await source.resolve({ signal }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'REGISTRY_DENIED' })
    expect(String(error)).toMatch(/you sent Bearer \*\*\*/)
  }))

  it('are not asked for over plain HTTP from another machine', () => bench({ issue: () => ({}), realm: 'http://tokens.example/token' }, async ({ registry, options, signal }) => {
    const { Authorizer } = await import('./authorizer.ts')
    const { Transport } = await import('../http/transport.ts')
    await using transport = new Transport({ caFiles: [], certificateDirectories: [], insecure: false, env: {} })
    const authorizer = new Authorizer({ transport, host: registry.host, retry: QUICK_RETRY, allowPlainHttp: false, credentials: async () => options.credentials })
    authorizer.challenge(await transport.request({ method: 'GET', url: new URL(`${registry.url}/v2/`), signal }))
    await expect(authorizer.header(['x'], signal)).rejects.toMatchObject({ code: 'REGISTRY_DENIED', message: expect.stringContaining('not encrypted') })
  }))
})

describe('basic authentication', () => {
  it('is used when asked for, and not sent where redirects lead', async () => {
    await using directory = await temporaryDirectory()
    await using elsewhereDirectory = await temporaryDirectory()
    await using elsewhere = await startFaultRegistry(elsewhereDirectory.path)
    const seen: (string | undefined)[] = []
    await using registry = await startFaultRegistry(directory.path, ({ request, response }) => {
      seen.push(request.headers.authorization)
      if (request.headers.authorization === BASIC) response.writeHead(307, { location: `${elsewhere.url}${request.url}` }).end()
      else response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      return true
    })
    const signal = AbortSignal.timeout(20_000)
    await using source = await openSource(`${registry.host}/a/b:1`, { signal, plainHttp: true, retry: QUICK_RETRY, env: {}, credentials: USER })
    await expect(source.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_NOT_FOUND' })
    expect(seen).toEqual([undefined, BASIC])
    expect(elsewhere.seen.map((request) => request.headers.authorization)).toEqual([undefined])
  })

  it('goes on with other credentials when they are swapped', async () => {
    await using directory = await temporaryDirectory()
    const seen: (string | undefined)[] = []
    await using registry = await startFaultRegistry(directory.path, ({ request, response }) => {
      seen.push(request.headers.authorization)
      if (request.headers.authorization !== BASIC) response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      return request.headers.authorization !== BASIC
    })
    const signal = AbortSignal.timeout(20_000)
    const options = { plainHttp: true, retry: QUICK_RETRY, env: {}, credentials: { ...USER, password: 'old' } } as const
    await using fetcher = createRangeFetcher({ host: registry.host, repository: 'a' }, options)
    const digest = `sha256:${'0'.repeat(64)}` as const
    await expect(fetcher.exists(digest, { signal })).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    fetcher.useCredentials(USER)
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    expect(seen.at(-1)).toBe(BASIC)
  })

  it('comes anew from docker\'s file when the old one is refused, or when that is asked for', async () => {
    await using directory = await temporaryDirectory()
    const docker = path.join(directory.path, '.docker')
    const accepted = { now: basicOf('first') }
    await using registry = await startFaultRegistry(path.join(directory.path, 'layout'), ({ request, response }) => {
      if (request.headers.authorization !== accepted.now) response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      return request.headers.authorization !== accepted.now
    })
    const write = async (password: string): Promise<void> => {
      await mkdir(docker, { recursive: true })
      await writeFile(path.join(docker, 'config.json'), JSON.stringify({ auths: { [registry.host]: { auth: basicOf(password).slice('Basic '.length) } } }))
    }
    const signal = AbortSignal.timeout(20_000)
    await write('first')
    await using fetcher = createRangeFetcher({ host: registry.host, repository: 'a' }, { plainHttp: true, retry: QUICK_RETRY, env: { HOME: directory.path } })
    const digest = `sha256:${'0'.repeat(64)}` as const
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    await write('second')
    accepted.now = basicOf('second')
    await new Promise((resolve) => { setTimeout(resolve, 1100) }) // files are not read more often
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    await write('third')
    accepted.now = basicOf('third')
    fetcher.reconfigure({ registryAuth: '' })
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    accepted.now = basicOf('fourth')
    fetcher.reconfigure({ registryAuth: basicOf('fourth').slice('Basic '.length) })
    expect(await fetcher.exists(digest, { signal })).toBe(false)
    expect(() => fetcher.reconfigure({ registryAuth: 'hunter2' })).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.not.stringContaining('hunter2') }))
  })

  it('without credentials is a refusal, not a loop', async () => {
    await using directory = await temporaryDirectory()
    await using registry = await startFaultRegistry(directory.path)
    registry.fault({ match: /./, act: answer(401, { 'www-authenticate': 'Basic realm="x"' }), times: 99 })
    const signal = AbortSignal.timeout(20_000)
    await using source = await openSource(`${registry.host}/a/b:1`, { signal, plainHttp: true, retry: QUICK_RETRY, env: {} })
    await expect(source.resolve({ signal })).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    expect(registry.seen.length).toBeLessThan(5)
  })
})

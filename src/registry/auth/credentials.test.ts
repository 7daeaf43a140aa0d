import { chmod, mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../../../test/support/images.ts'
import { subscribe } from '../../core/diagnostics.ts'
import { decodeBasic, findCredentials } from './credentials.ts'

const signal = AbortSignal.timeout(20_000)
const auth = (user: string, password: string) => Buffer.from(`${user}:${password}`).toString('base64')
const password = (username: string, secret: string) => ({ kind: 'password', username, password: secret })

interface Home { readonly env: NodeJS.ProcessEnv; write(name: string, text: string | object): Promise<string>; program(name: string, script: string): Promise<void> }

async function home(use: (home: Home) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory()
  const bin = path.join(directory.path, 'bin')
  await mkdir(bin)
  const write = async (name: string, text: string | object): Promise<string> => {
    const file = path.join(directory.path, name)
    await mkdir(path.dirname(file), { recursive: true })
    await writeFile(file, typeof text === 'string' ? text : JSON.stringify(text))
    return file
  }
  await use({
    env: { HOME: directory.path, PATH: `${bin}:${process.env['PATH']}` }, write,
    program: async (name, script) => chmod(await write(`bin/${name}`, `#!/bin/sh\n${script}\n`), 0o755),
  })
}

describe('credentials', () => {
  it.each([
    ['docker.io', 'library/alpine', { 'https://index.docker.io/v1/': { auth: auth('u', 'p:with:colons') } }, password('u', 'p:with:colons')],
    ['docker.io', 'a/b', { 'docker.io': { auth: auth('u', 'p') } }, password('u', 'p')],
    ['r.example:5000', 'a', { 'r.example:5000': { auth: auth('u', 'p') } }, password('u', 'p')],
    ['r.example', 'a', { 'https://r.example/v2/': { auth: auth('u', 'p') } }, password('u', 'p')],
    ['r.example', 'a/b/c', { 'r.example': { auth: auth('u', 'p') }, 'r.example/a/b': { auth: auth('deep', 'd') }, 'r.example/a': { auth: auth('mid', 'm') } }, password('deep', 'd')],
    ['r.example', 'ab', { 'r.example/a': { auth: auth('u', 'p') } }, undefined],
    ['r.example', 'a', { 'r.example': { identitytoken: 'T', auth: auth('u', 'p') } }, { kind: 'identity', token: 'T' }],
    ['r.example', 'a', { 'r.example': { registrytoken: 'T' } }, { kind: 'bearer', token: 'T' }],
    ['r.example', 'a', { 'r.example': {} }, undefined],
    ['other.example', 'a', { 'r.example': { auth: auth('u', 'p') } }, undefined],
  ])('of %s/%s from auths', (host, repository, auths, expected) => home(async ({ env, write }) => {
    await write('.docker/config.json', { auths })
    expect(await findCredentials(host, repository, { env, signal })).toEqual(expected)
  }))

  it('come from the first place that has some', () => home(async ({ env, write }) => {
    const file = (user: string) => ({ auths: { h: { auth: auth(user, 'p') } } })
    const found = async (extra: NodeJS.ProcessEnv) => findCredentials('h', 'a', { env: { ...env, ...extra }, signal })
    await write('.config/containers/auth.json', file('config'))
    expect(await found({})).toMatchObject({ username: 'config' })
    await write('run/containers/auth.json', file('run'))
    expect(await found({ XDG_RUNTIME_DIR: `${env['HOME']}/run` })).toMatchObject({ username: 'run' })
    await write('.docker/config.json', file('docker'))
    expect(await found({ XDG_RUNTIME_DIR: `${env['HOME']}/run` })).toMatchObject({ username: 'docker' })
    await write('elsewhere/config.json', file('elsewhere'))
    expect(await found({ DOCKER_CONFIG: `${env['HOME']}/elsewhere` })).toMatchObject({ username: 'elsewhere' })
    expect(await found({ DOCKER_AUTH_CONFIG: JSON.stringify(file('inline')) })).toMatchObject({ username: 'inline' })
    expect(await found({ REGISTRY_AUTH_FILE: await write('named.json', file('named')), DOCKER_AUTH_CONFIG: '{}' })).toMatchObject({ username: 'named' })
  }))

  it('come from the helper of the host, then the store, then the file', () => home(async ({ env, write, program }) => {
    await write('.docker/config.json', { credHelpers: { 'a.example': 'mine' }, credsStore: 'store', auths: { 'c.example': { auth: auth('file', 'p') } } })
    await program('docker-credential-mine', 'read host; [ "$1" = get ] && echo "{\\"Username\\":\\"$host\\",\\"Secret\\":\\"s\\"}"')
    await program('docker-credential-store', 'read host; [ "$host" = b.example ] && echo \'{"Username":"<token>","Secret":"refresh"}\' || { echo "credentials not found in native keychain"; exit 1; }')
    expect(await findCredentials('a.example', 'x', { env, signal })).toEqual(password('a.example', 's'))
    expect(await findCredentials('b.example', 'x', { env, signal })).toEqual({ kind: 'identity', token: 'refresh' })
    expect(await findCredentials('c.example', 'x', { env, signal })).toEqual(password('file', 'p'))
    expect(await findCredentials('d.example', 'x', { env, signal })).toBe(undefined)
  }))

  it('are none, with a notice, when the helper is not installed', () => home(async ({ env, write }) => {
    await write('.docker/config.json', { credsStore: 'absent-nydus' })
    const notices: string[] = []
    const stop = subscribe('registry:credentials:skipped', (event) => notices.push(event.helper))
    expect(await findCredentials('h', 'x', { env, signal })).toBe(undefined)
    stop()
    expect(notices).toEqual(['docker-credential-absent-nydus'])
  }))

  it.each([
    ['fails', 'echo hunter2-secret; echo broken >&2; exit 1', /broken/],
    ['answers no JSON', 'echo hunter2-secret', /no JSON/],
    ['answers without a secret', 'echo \'{"Username":"hunter2-secret"}\'', /without a secret/],
    ['answers without end', 'yes hunter2-secret', /more than/],
  ])('of a helper that %s are an error without what it printed', (_, script, message) => home(async ({ env, write, program }) => {
    await write('.docker/config.json', { credsStore: 'bad' })
    await program('docker-credential-bad', script)
    const error = await findCredentials('h', 'x', { env, signal }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'REGISTRY_DENIED', message: expect.stringMatching(message) })
    expect(JSON.stringify([String(error), error])).not.toContain('hunter2')
  }))

  it('of a helper that never answers end with the caller', () => home(async ({ env, write, program }) => {
    await write('.docker/config.json', { credsStore: 'slow' })
    await program('docker-credential-slow', 'exec sleep 60')
    const leaving = AbortSignal.timeout(100)
    await expect(findCredentials('h', 'x', { env, signal: leaving })).rejects.toMatchObject({ name: 'TimeoutError' })
  }))

  it('run no helper whose name is a path', () => home(async ({ env, write }) => {
    await write('.docker/config.json', { credsStore: '../../bin/sh' })
    await expect(findCredentials('h', 'x', { env, signal })).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  }))

  it('in a damaged file are an error that quotes nothing of it', () => home(async ({ env, write }) => {
    await write('.docker/config.json', '{"auths": hunter2')
    const error = await findCredentials('h', 'x', { env, signal }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' })
    expect(JSON.stringify([String(error), error])).not.toContain('hunter2')
  }))

  it('in base64 without a user are none', () => {
    expect(decodeBasic(auth('', 'p'))).toBe(undefined)
    expect(decodeBasic('!!!')).toBe(undefined)
    expect(decodeBasic(auth('ü', 'ß'))).toEqual(password('ü', 'ß'))
  })
})

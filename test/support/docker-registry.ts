// Debian's docker-registry as a peer: plain, with users, with a token service of ours, with TLS under a private CA.

import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { createSign, randomUUID, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export const USERNAME = 'user'
export const PASSWORD = 'correct horse: battery'

export interface DockerRegistryOptions {
  readonly auth?: 'basic' | { readonly realm: string; readonly certificate: string }
  /** PEM files; without them plain HTTP. */
  readonly tls?: { readonly certificate: string; readonly key: string }
}

export interface DockerRegistry extends AsyncDisposable { readonly host: string; readonly storage: string }

/** Starts one with its data below `directory` and waits until it listens. */
export async function startDockerRegistry(directory: string, options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  await mkdir(directory, { recursive: true })
  const port = await freePort()
  const storage = path.join(directory, 'storage')
  const config = {
    version: '0.1', log: { level: 'error' },
    storage: { filesystem: { rootdirectory: storage }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}`, secret: randomUUID(), ...(options.tls ? { tls: { certificate: options.tls.certificate, key: options.tls.key } } : {}) },
    ...(options.auth === undefined ? {} : { auth: await authSection(directory, options.auth) }),
  }
  const file = path.join(directory, 'config.yml')
  await writeFile(file, JSON.stringify(config)) // JSON is YAML
  const child = spawn('docker-registry', ['serve', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  const errors: Buffer[] = []
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk))
  await listening(port, child, () => Buffer.concat(errors).toString())
  return {
    host: `127.0.0.1:${port}`, storage,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}

export interface TokenService extends AsyncDisposable {
  readonly realm: string
  readonly certificate: string
  /** Tokens given so far. */
  readonly issued: readonly { readonly scopes: readonly string[]; readonly user: string | undefined }[]
}

/** What docker-registry adds to a token's life, in seconds. SPEC: distribution registry/auth/token/token.go Leeway. */
const LEEWAY = 60

/** Signs RS256 tokens of `expiresIn` seconds: pulls for everybody, pushes for USERNAME. With `refusedAfter` seconds the registry refuses them, whatever was announced. */
export async function startTokenService(directory: string, { expiresIn, refusedAfter = expiresIn + LEEWAY }: { expiresIn: number; refusedAfter?: number }): Promise<TokenService> {
  await mkdir(directory, { recursive: true })
  const key = path.join(directory, 'token.key')
  const certificate = path.join(directory, 'token.crt')
  await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=tokens'])
  const privateKey = await readFile(key)
  const x5c = [new X509Certificate(await readFile(certificate)).raw.toString('base64')]
  const issued: { scopes: readonly string[]; user: string | undefined }[] = []
  const server = createServer((request, response) => {
    const { searchParams } = new URL(request.url ?? '', 'http://x')
    const [user, ...rest] = Buffer.from(/^Basic (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '', 'base64').toString().split(':')
    if (user !== '' && (user !== USERNAME || rest.join(':') !== PASSWORD)) { response.writeHead(401).end(); return }
    const scopes = searchParams.getAll('scope').flatMap((scope) => scope.split(' '))
    issued.push({ scopes, user })
    const access = scopes.map((scope) => {
      const [type, name, actions = ''] = scope.split(':')
      return { type, name, actions: actions.split(',').filter((action) => action === 'pull' || user === USERNAME) }
    })
    const now = Math.floor(Date.now() / 1000)
    const claims = { iss: 'nydus-test', sub: user, aud: searchParams.get('service'), exp: now + refusedAfter - LEEWAY, nbf: now - 10, iat: now, jti: randomUUID(), access }
    const signed = [{ alg: 'RS256', typ: 'JWT', x5c }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
    const signature = createSign('RSA-SHA256').update(signed).sign(privateKey).toString('base64url')
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token: `${signed}.${signature}`, expires_in: expiresIn, issued_at: new Date().toISOString() }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    certificate, issued, realm: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}

/** A CA and a certificate of 127.0.0.1 and localhost under it. */
export async function makePrivateCa(directory: string): Promise<{ readonly ca: string; readonly certificate: string; readonly key: string }> {
  await mkdir(directory, { recursive: true })
  const at = (name: string) => path.join(directory, name)
  await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', at('ca.key'), '-out', at('ca.crt'), '-days', '2', '-subj', '/CN=nydus test CA'])
  await run('openssl', ['req', '-newkey', 'rsa:2048', '-nodes', '-keyout', at('server.key'), '-out', at('server.csr'), '-subj', '/CN=localhost'])
  await writeFile(at('ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
  await run('openssl', ['x509', '-req', '-in', at('server.csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial', '-out', at('server.crt'), '-days', '2', '-extfile', at('ext')])
  return { ca: at('ca.crt'), certificate: at('server.crt'), key: at('server.key') }
}

async function authSection(directory: string, auth: NonNullable<DockerRegistryOptions['auth']>): Promise<object> {
  if (auth !== 'basic') return { token: { realm: auth.realm, service: 'nydus-registry', issuer: 'nydus-test', rootcertbundle: auth.certificate } }
  const file = path.join(directory, 'htpasswd')
  await writeFile(file, (await run('htpasswd', ['-Bbn', USERNAME, PASSWORD])).stdout)
  return { htpasswd: { realm: 'test', path: file } }
}

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function listening(port: number, child: ChildProcess, errors: () => string): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended: ${errors()}`)
    const socket = connect(port, '127.0.0.1')
    const open = await new Promise<boolean>((resolve) => { socket.once('connect', () => resolve(true)).once('error', () => resolve(false)) })
    socket.destroy()
    if (open) return
    await new Promise((resolve) => { setTimeout(resolve, 50) })
  }
  child.kill('SIGKILL')
  throw new Error(`docker-registry does not listen: ${errors()}`)
}

import { describe, expect, it } from 'vitest'
import { RegistryClient } from './registry-client.ts'

describe('a location that a registry sends', () => {
  const resolve = async (location: string | undefined, from: string, insecure = false): Promise<string> => {
    await using client = new RegistryClient({ host: 'r.example', repository: 'a' }, { access: 'push', insecure, env: {} })
    return client.resolveLocation(location, new URL(from)).href
  }

  it.each([
    ['/v2/a/x', 'https://r.example:5000/v2/a/', 'https://r.example:5000/v2/a/x'],
    ['x?y=1', 'https://r.example/v2/a/', 'https://r.example/v2/a/x?y=1'],
    ['https://cdn.example/x?sig=a%2Fb', 'https://r.example/', 'https://cdn.example/x?sig=a%2Fb'],
    ['http://r.example/x', 'https://r.example:5000/', 'https://r.example:5000/x'], // a TLS proxy in front that it does not know of
    ['http://r.example:80/x', 'https://r.example/', 'https://r.example/x'],
    ['http://cdn.example/x', 'http://r.example/', 'http://cdn.example/x'],
  ])('%s from %s is %s', async (location, from, expected) => {
    expect(await resolve(location, from)).toBe(expected)
  })

  it.each([undefined, 'ftp://x/', 'https://[', 'file:///etc/passwd', 'http://cdn.example/x'])('%s from TLS is refused', async (location) => {
    await expect(resolve(location, 'https://r.example/')).rejects.toMatchObject({ code: 'REGISTRY_PROTOCOL' })
  })

  it('to plain HTTP is followed when insecure was asked for', async () => {
    expect(await resolve('http://cdn.example/x', 'https://r.example/', true)).toBe('http://cdn.example/x')
  })
})

// A line to a registry that breaks in the middle of things: a TCP relay, so that TLS goes through it as it is.

import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface RoughLineOptions {
  /** A connection that has carried so many bytes one way is cut, both ends. */
  readonly cutAfter: number
  /** How many connections are cut in each direction, before the line is good. */
  readonly cuts: { readonly down: number; readonly up: number }
  /** Bytes a second and connection, each way. */
  readonly rate: number
}

export interface RoughLine extends AsyncDisposable {
  readonly host: string
  /** Connections cut so far. */
  readonly cut: { readonly down: number; readonly up: number }
}

const TICK_MS = 20

/** Starts a relay to `target`, host:port. */
export async function startRoughLine(target: string, { cutAfter, cuts, rate }: RoughLineOptions): Promise<RoughLine> {
  const [host = '', port = ''] = target.split(':')
  const cut = { down: 0, up: 0 }
  const open = new Set<Socket>()
  const server = createServer((client) => {
    const registry = connect(Number(port), host)
    const end = () => { client.destroy(); registry.destroy() }
    for (const socket of [client, registry]) {
      open.add(socket)
      socket.on('error', end).on('close', () => { open.delete(socket); end() })
    }
    relay(client, registry, 'up')
    relay(registry, client, 'down')

    function relay(from: Socket, to: Socket, way: 'down' | 'up'): void {
      let passed = 0
      from.on('data', (bytes) => {
        passed += bytes.length
        if (passed > cutAfter && cut[way] < cuts[way]) {
          cut[way]++
          to.write(bytes.subarray(0, bytes.length >> 1), end)
          return
        }
        to.write(bytes)
        from.pause()
        setTimeout(() => from.resume(), Math.max(bytes.length / rate * 1000, to.writableLength > 0 ? TICK_MS : 0))
      })
      from.on('end', () => to.end())
    }
  })
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  // SAFETY: it listens on TCP.
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, cut, async [Symbol.asyncDispose]() {
    for (const socket of open) socket.destroy()
    await new Promise((resolve) => { server.close(resolve) })
  } }
}

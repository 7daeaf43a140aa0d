import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { native } from './load.ts'

const directory = mkdtempSync(path.join(tmpdir(), 'nydus-socket-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function descriptorOf(socket: Socket): number {
  // SAFETY: node:net keeps the descriptor of a connected Unix socket there; it has no public name.
  return (socket as unknown as { _handle: { fd: number } })._handle.fd
}

/** Two ends of a connection; Node reads from neither. */
async function pair(name: string): Promise<{ ends: [Socket, Socket]; close: () => void }> {
  const server = createServer({ pauseOnConnect: true })
  await new Promise<void>((resolve) => server.listen(path.join(directory, name), resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const client = connect({ path: path.join(directory, name) })
  await new Promise((resolve) => client.once('connect', resolve))
  client.pause()
  const other = await accepted
  return { ends: [client, other], close: () => { client.destroy(); other.destroy(); server.close() } }
}

describe('sendFds and receiveFds', () => {
  it('hand an open file to the other end', async () => {
    const { ends: [client, server], close } = await pair('files')
    const file = path.join(directory, 'file')
    writeFileSync(file, 'content')
    const fd = openSync(file, 'r')
    expect(native().sendFds(descriptorOf(client), Buffer.from('take these'), Int32Array.of(fd, fd))).toBe(10)
    const bytes = Buffer.alloc(100)
    const fds = new Int32Array(4)
    expect(native().receiveFds(descriptorOf(server), bytes, fds)).toBe(10)
    expect(bytes.toString('utf8', 0, 10)).toBe('take these')
    expect([...fds.subarray(2)]).toEqual([-1, -1])
    const text = Buffer.alloc(7)
    readSync(fds[0]!, text, 0, 7, 0)
    expect(text.toString()).toBe('content')
    for (const open of [fd, fds[0]!, fds[1]!]) closeSync(open)
    close()
  })

  it('close all that came when more came than there is room for', async () => {
    const { ends: [client, server], close } = await pair('overflow')
    const fd = openSync(directory, 'r')
    native().sendFds(descriptorOf(client), Buffer.from('x'), Int32Array.of(fd, fd, fd))
    const fds = new Int32Array(2)
    const next = openSync('/dev/null', 'r')
    closeSync(next) // the number that a new descriptor gets
    expect(native().receiveFds(descriptorOf(server), Buffer.alloc(1), fds)).toBe(-90)
    expect([...fds]).toEqual([-1, -1])
    const after = openSync('/dev/null', 'r')
    expect(after).toBe(next)
    for (const open of [fd, after]) closeSync(open)
    close()
  })

  it('give an errno without a connection, and say 0 at its end', async () => {
    const { ends: [client, server], close } = await pair('end')
    expect(native().sendFds(-1, Buffer.from('x'), new Int32Array(0))).toBe(-9)
    expect(native().sendFds(descriptorOf(client), new Uint8Array(0), Int32Array.of(0))).toBe(-22)
    expect(native().receiveFds(descriptorOf(server), Buffer.alloc(1), new Int32Array(1))).toBe(-11) // nothing there yet
    client.destroy()
    await new Promise((resolve) => client.once('close', resolve))
    expect(native().receiveFds(descriptorOf(server), Buffer.alloc(1), new Int32Array(1))).toBe(0)
    close()
  })
})

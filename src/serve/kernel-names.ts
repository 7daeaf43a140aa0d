// Tells the kernel that names it has remembered are no longer what they were. The writes wait for locks of the kernel's that are held while
// it waits for an answer of ours, so they are done by Node's thread pool, never by a thread that answers requests.
// SPEC: linux fs/fuse/dir.c fuse_reverse_inval_entry, fs/fuse/inode.c fuse_reverse_inval_inode.

import { write } from 'node:fs'
import { publish } from '../core/diagnostics.ts'
import { outHeader } from '../wire/fuse/header.ts'
import { FUSE_EXPIRE_ONLY, notifyInvalEntryOut, notifyInvalInodeOut } from '../wire/fuse/notify.ts'
import { FUSE_NOTIFY } from '../wire/fuse/opcode.ts'

/** Names of one directory, which node (nodeHigh, nodeLow) is. */
export interface StaleNames { readonly nodeHigh: number; readonly nodeLow: number; readonly names: readonly string[] }

/** The kernel does not know the node or the name; or there is nobody to tell any more. */
const HARMLESS = new Set(['ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'ENOTCONN', 'ENODEV', 'EBADF'])

/**
 * Resolves when whoever uses these names, or lists the directory, from now on asks this server. What is known below them is freed after
 * that: dropping a tree of 80,000 files takes the kernel a while, and nobody needs to wait for it. `freed` resolves then.
 */
export async function forgetNames(fd: number, { nodeHigh, nodeLow, names }: StaleNames): Promise<{ readonly freed: Promise<void> }> {
  const entries = (flags: number): Promise<unknown> => Promise.all(names.map((name) => notify(fd, FUSE_NOTIFY.INVAL_ENTRY,
    notifyInvalEntryOut.encode({ parentLow: nodeLow, parentHigh: nodeHigh, nameLength: name.length, flags }), Buffer.from(`${name}\0`, 'latin1'))))
  // 1. the names: waits for lookups and listings under way, whose answers may be old
  await entries(FUSE_EXPIRE_ONLY)
  // 2. the listing, which is kept as the directory's pages
  await notify(fd, FUSE_NOTIFY.INVAL_INODE, notifyInvalInodeOut.encode({ nodeLow, nodeHigh, offset: 0n, length: 0n }))
  // 3. memory
  return { freed: entries(0).then(() => undefined) }
}

function notify(fd: number, code: number, ...parts: readonly Uint8Array[]): Promise<void> {
  const length = parts.reduce((sum, part) => sum + part.length, outHeader.size)
  const message = Buffer.concat([outHeader.encode({ length, error: code, uniqueLow: 0, uniqueHigh: 0 }), ...parts])
  return new Promise((resolve) => write(fd, message, (error) => {
    if (error && !HARMLESS.has(error.code ?? '')) publish('serve:warning:raised', { message: `the kernel keeps old names: ${error.message}` })
    resolve()
  }))
}

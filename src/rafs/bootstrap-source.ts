// Bootstraps as they come: a file of their own (mapped), bytes, or the end of a blob that carries one.

import { constants, closeSync, fstatSync, openSync } from 'node:fs'
import path from 'node:path'
import { CodedError, hasCode } from '../core/errors.ts'
import { S_IFDIR, S_IFMT } from '../format/erofs/inode.ts'
import { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { mapFile } from '../native/file.ts'
import { native } from '../native/load.ts'
import { errnoOf, LocalfsBackend, readInlinedBootstrap } from '../storage/index.ts'

/** Lets another thread of this process see the same bytes. */
export type SharedBootstrap =
  | { readonly fd: number; readonly length: number; readonly blobIdFromName: string | undefined }
  | { readonly memory: SharedArrayBuffer; readonly blobIdFromName: string | undefined }

export interface OpenBootstrap {
  readonly view: BootstrapView
  readonly shared: SharedBootstrap
  /** Unmaps: the view must not be used afterwards. */
  close(): void
}

/** Opens a bootstrap, or the one inside a blob, by its path or its bytes. FORMAT_*; RAFS_NOT_FOUND when there is no such file. */
export async function openBootstrap(source: string | Uint8Array, { signal }: { readonly signal: AbortSignal }): Promise<OpenBootstrap> {
  if (typeof source !== 'string') return fromMemory(source, undefined)
  // SPEC: spec-rafs.md E 15: a blob's id is its file's name up to the first dot
  const blobIdFromName = path.basename(source).split('.')[0]!
  try {
    return fromFile(source, blobIdFromName)
  } catch (error) {
    if (!hasCode(error, 'FORMAT_BAD_MAGIC')) throw error
    return fromMemory(await insideBlob(source, error, signal), blobIdFromName)
  }
}

/** The same bytes in another thread. */
export function openSharedBootstrap(shared: SharedBootstrap): { readonly view: BootstrapView; close(): void } {
  const { blobIdFromName } = shared
  if ('memory' in shared) return { view: BootstrapView.open(new Uint8Array(shared.memory), { blobIdFromName }), close() {} }
  const mapping = mapFile(shared.fd, { offset: 0, length: shared.length, writable: false })
  return { view: BootstrapView.open(new Uint8Array(mapping), { blobIdFromName }), close: () => native().munmap(mapping) }
}

function fromFile(file: string, blobIdFromName: string): OpenBootstrap {
  const fd = openFile(file)
  try {
    const { size } = fstatSync(fd)
    if (size === 0) throw new CodedError('FORMAT_TRUNCATED', `${file} is empty`, { file })
    const shared = { fd, length: size, blobIdFromName }
    const { view, close } = openSharedBootstrap(shared)
    return { view: withRoot(view), shared, close() { close(); closeSync(fd) } }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function openFile(file: string): number {
  try {
    return openSync(file, constants.O_RDONLY)
  } catch (error) {
    const errno = errnoOf(error)
    throw new CodedError('RAFS_NOT_FOUND', `cannot open bootstrap ${file}: ${errno}`, { file, errno }, { cause: error })
  }
}

/** An image whose root cannot be read has nothing to show. */
function withRoot(view: BootstrapView): BootstrapView {
  if ((view.inode(view.rootNid).mode & S_IFMT) !== S_IFDIR) throw new CodedError('FORMAT_INVALID', 'the root of the image is no directory', { nid: view.rootNid })
  return view
}

function fromMemory(bytes: Uint8Array, blobIdFromName: string | undefined): OpenBootstrap {
  const memory = new SharedArrayBuffer(bytes.length)
  const copy = new Uint8Array(memory)
  copy.set(bytes)
  return { view: withRoot(BootstrapView.open(copy, { blobIdFromName })), shared: { memory, blobIdFromName }, close() {} }
}

async function insideBlob(file: string, notBootstrap: CodedError, signal: AbortSignal): Promise<Uint8Array> {
  const backend = new LocalfsBackend({ blobFile: file })
  try {
    return await readInlinedBootstrap(backend.open(''), { signal })
  } catch (error) {
    // neither: what the file is not as a bootstrap says more
    throw hasCode(error, 'FORMAT_BAD_MAGIC') ? notBootstrap : error
  } finally {
    await backend.close()
  }
}

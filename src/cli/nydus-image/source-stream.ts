// The archive that `create` reads: a file, a FIFO or a character device such as /dev/stdin, in pieces, to its end.

import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'

/** What a path is: decided before any output is opened. BUILD_SOURCE when it is not there. */
export async function kindOfSource(path: string): Promise<'directory' | 'stream'> {
  try {
    const info = await stat(path)
    if (info.isDirectory()) return 'directory'
    if (info.isFile() || info.isFIFO() || info.isCharacterDevice() || info.isSocket()) return 'stream'
  } catch (error) {
    throw new CodedError('BUILD_SOURCE', `cannot read source ${path}: ${error instanceof Error ? error.message : String(error)}`, { path }, { cause: error })
  }
  throw new CodedError('BUILD_SOURCE', `source ${path} is neither a directory nor a file, FIFO or character device`, { path })
}

/** The bytes of `path`. Opened at the first read: a FIFO's writer may come later. BUILD_SOURCE. */
export async function* sourceStream(path: string, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<Uint8Array> {
  try {
    // SAFETY: without an encoding a read stream gives Buffers.
    for await (const chunk of createReadStream(path, { highWaterMark: MiB, signal })) yield chunk as Buffer
  } catch (error) {
    if (signal.aborted) throw signal.reason
    throw new CodedError('BUILD_SOURCE', `cannot read source ${path}: ${error instanceof Error ? error.message : String(error)}`, { path }, { cause: error })
  }
}

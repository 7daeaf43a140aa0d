// `nydus-image unpack`. SPEC: spec-surface.md A.6.

import { closeSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import type { Command } from 'commander'
import { unpackTar } from '../../build/index.ts'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { RafsImage } from '../../rafs/index.ts'
import { LocalfsBackend } from '../../storage/index.ts'
import { usageError } from '../command-line.ts'
import { untilSignal } from '../signals.ts'
import { bootstrapArgument } from './load.ts'

interface UnpackFlags {
  readonly blob?: string
  readonly blobDir?: string
  readonly backendType?: string
  readonly output?: string
}

/** Writes the tar to `--output` (a file, a FIFO, `-` for stdout). STORAGE_* when contents cannot be had: then no file is left. */
export async function unpack(positional: string | undefined, command: Command): Promise<void> {
  const flags = command.opts<UnpackFlags>()
  const bootstrap = bootstrapArgument(command, positional)
  if (flags.output === undefined) usageError(command, 'the following required arguments were not provided:\n  --output <output>')
  if (flags.output === '') throw new CodedError('BUILD_INVALID_OPTION', 'invalid empty --output option')
  const given = [flags.blob, flags.blobDir, flags.backendType].filter((one) => one !== undefined)
  if (given.length > 1) usageError(command, `the argument '--blob <blob>' cannot be used with '--blob-dir <blob-dir>' or '--backend-type <backend-type>'`)
  if (flags.backendType !== undefined) {
    throw new CodedError('FORMAT_UNSUPPORTED', `--backend-type ${flags.backendType}: unpack reads local blobs in this version (--blob, --blob-dir)`, { type: flags.backendType })
  }
  if (given.length === 0) throw new CodedError('BUILD_INVALID_OPTION', '--blob, --blob-dir or --backend-type must be specified')

  const output = flags.output
  await untilSignal(async (signal) => {
    const backend = flags.blob === undefined ? new LocalfsBackend({ dir: flags.blobDir! }) : new LocalfsBackend({ blobFile: flags.blob })
    const image = await RafsImage.open({ bootstrap, backend, signal })
    try {
      await writeTar(image, output, signal)
    } finally {
      await image.close()
    }
  })
}

async function writeTar(image: RafsImage, output: string, signal: AbortSignal): Promise<void> {
  const fd = output === '-' ? 1 : openOutput(output)
  const source = {
    view: image.view,
    async read(inode: Parameters<RafsImage['readInto']>[0], offset: number, length: number, options: { readonly signal: AbortSignal }) {
      const bytes = new Uint8Array(length)
      return bytes.subarray(0, await image.readInto(inode, offset, bytes, options))
    },
  }
  let isWhole = false
  try {
    for await (const piece of unpackTar(source, { signal, userName: nameTable('/etc/passwd'), groupName: nameTable('/etc/group') })) {
      for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at)
    }
    isWhole = true
  } finally {
    if (fd !== 1) closeSync(fd)
    if (!isWhole && output !== '-' && statSync(output).isFile()) rmSync(output)
  }
}

function openOutput(output: string): number {
  try {
    return openSync(output, 'w')
  } catch (error) {
    throw new CodedError('BUILD_OUTPUT', `cannot write ${output}: ${error instanceof Error ? error.message : String(error)}`, { output }, { cause: error })
  }
}

/** Names by number, as the host has them; '' where it has none. COMPAT: upstream asks the host too. */
function nameTable(file: string): (id: number) => string {
  const names = new Map<number, string>()
  try {
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const [name, , id] = line.split(':')
      if (name && id !== undefined && !names.has(Number(id))) names.set(Number(id), name)
    }
  } catch (error) {
    if (!isSystemError(error, 'ENOENT')) throw error
  }
  return (id) => names.get(id) ?? ''
}

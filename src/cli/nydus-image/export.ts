// `nydus-image export --block`. SPEC: spec-surface.md A.6.

import { closeSync, fstatSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import type { Command } from 'commander'
import { exportDisk, type ExportResult } from '../../build/index.ts'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { openConfiguredImage } from '../../rafs/index.ts'
import { localfsConfig, MAX_CONFIG_SIZE, type NydusConfig, parseBlobCacheEntry } from '../../storage/index.ts'
import { refuseTogether, usageError } from '../command-line.ts'
import { NETWORK } from '../nydusd/image.ts'
import { untilSignal } from '../signals.ts'

interface ExportFlags {
  readonly bootstrap?: string
  readonly config?: string
  readonly localfsDir?: string
  readonly threads: string
  readonly output?: string
  readonly verity?: boolean
}

/** LIMIT: as upstream's; each stands for two buffers of 4 MiB. */
const MAX_THREADS = 32
/** Bytes of a blob that are asked for and decoded at once. */
const RANGE = 2 * 2 ** 20

/** Writes the disk, whole or not at all, and prints what dm-verity must be told. FORMAT_*, STORAGE_*, CONFIG_INVALID, BUILD_OUTPUT. */
export async function exportBlock(command: Command): Promise<void> {
  const flags = command.opts<ExportFlags>()
  const threads = threadsOf(command, flags.threads)
  const { bootstrap, config, output } = await sourceOf(command, flags)
  await untilSignal(async (signal) => {
    const image = await openConfiguredImage(config, { bootstrap, network: NETWORK, verify: 'where-possible', signal })
    try {
      const result = await intoFile(output, (fd, isEmptyFile) => exportDisk({ image, fd, isEmptyFile, verity: flags.verity === true, threads, signal }))
      if (result.verity !== undefined) process.stdout.write(`${verityLine(result, result.verity)}\n`)
    } finally {
      await image.close()
    }
  })
}

/** COMPAT: the snapshotter reads this with a fixed pattern, from the start of what is printed (snap/pkg/tarfs/tarfs.go). */
function verityLine({ blockSize, blocks }: ExportResult, { offset, root }: NonNullable<ExportResult['verity']>): string {
  return `dm-verity options: --no-superblock --format=1 -s "" --hash=sha256 --data-block-size=${blockSize} --hash-block-size=4096 --data-blocks ${blocks} --hash-offset ${offset} ${root.toString('hex')}`
}

function threadsOf(command: Command, text: string): number {
  const threads = Number(text)
  if (!/^[0-9]+$/.test(text) || threads < 1 || threads > 1024) usageError(command, `invalid value '${text}' for '--threads <threads>': want a number from 1 to 1024`)
  return Math.min(threads, MAX_THREADS)
}

async function sourceOf(command: Command, { bootstrap, config, localfsDir, output }: ExportFlags): Promise<{ bootstrap: string; config: NydusConfig; output: string }> {
  refuseTogether(command, 'localfsDir', 'config')
  if (localfsDir !== undefined && bootstrap === undefined) usageError(command, 'the following required arguments were not provided:\n  --bootstrap <bootstrap>')
  if (bootstrap !== undefined && localfsDir === undefined) usageError(command, 'the following required arguments were not provided:\n  --localfs-dir <localfs-dir>')
  if (localfsDir !== undefined) {
    return { bootstrap: bootstrap!, config: exporting(localfsConfig(path.resolve(localfsDir))), output: output ?? path.join(localfsDir, `${path.basename(bootstrap!)}.disk`) }
  }
  if (output === undefined) usageError(command, 'the following required arguments were not provided:\n  --output <output>')
  if (config === undefined) throw new CodedError('BUILD_INVALID_OPTION', 'both option `-C/--config` and `-D/--localfs-dir` are missing')
  const entry = await parseBlobCacheEntry(await readConfig(config))
  return { bootstrap: entry.metadataPath, config: exporting(entry.config), output }
}

/**
 * Without a cache: what is exported is not wanted twice, and chunks that no file uses are written without being verified, which a cache
 * must never hold.
 */
function exporting(config: NydusConfig): NydusConfig {
  return { ...config, cache: { ...config.cache, workDir: undefined }, rafs: { ...config.rafs, batchSize: RANGE } }
}

async function readConfig(file: string): Promise<string> {
  try {
    if ((await stat(file)).size > MAX_CONFIG_SIZE) throw new CodedError('CONFIG_INVALID', `configuration: longer than ${MAX_CONFIG_SIZE} bytes`)
    return await readFile(file, 'utf8')
  } catch (cause) {
    if (!isSystemError(cause, 'ENOENT', 'EACCES', 'EISDIR', 'ENOTDIR')) throw cause
    throw new CodedError('CONFIG_INVALID', `cannot read ${file}: ${cause instanceof Error ? cause.message : ''}`, { file }, { cause })
  }
}

/** A regular file gets its name when it is whole; a device is written as it is. */
async function intoFile(output: string, write: (fd: number, isEmptyFile: boolean) => Promise<ExportResult>): Promise<ExportResult> {
  if (isSpecial(output)) {
    const fd = openOutput(output, 'r+')
    try {
      return await write(fd, false)
    } finally {
      closeSync(fd)
    }
  }
  const partial = path.join(path.dirname(output), `.${path.basename(output)}.${randomUUID()}.partial`)
  const fd = openOutput(partial, 'wx+')
  try {
    const result = await write(fd, fstatSync(fd).isFile())
    renameSync(partial, output)
    return result
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
}

function isSpecial(file: string): boolean {
  try {
    return !statSync(file).isFile()
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return false
    throw error
  }
}

function openOutput(file: string, flags: string): number {
  try {
    return openSync(file, flags, 0o644)
  } catch (error) {
    throw new CodedError('BUILD_OUTPUT', `cannot write ${file}: ${error instanceof Error ? error.message : String(error)}`, { file }, { cause: error })
  }
}

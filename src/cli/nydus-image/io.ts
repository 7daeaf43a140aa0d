// What `create` and `merge` read and write besides sources and blobs: bootstraps, prefetch patterns from stdin, the JSON result, the summary.

import { createHash, randomUUID } from 'node:crypto'
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { type BuildOutput, type NamedBootstrap, parsePrefetchPatterns, type PrefetchOptions, PREFETCH_POLICIES } from '../../build/index.ts'
import { type Events, subscribe } from '../../core/diagnostics.ts'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { globalOption, LOG_LEVELS, type LogLevel } from '../command-line.ts'

/** BUILD_SOURCE when it cannot be read. */
export function readBootstrap(file: string): NamedBootstrap {
  return { name: path.basename(file), bytes: readOrFail(file) }
}

/** `[bootstrap=]PATH`. BUILD_INVALID_OPTION for another kind. */
export function readChunkDict(argument: string | undefined): NamedBootstrap | undefined {
  if (argument === undefined) return undefined
  const [, kind, file] = /^(?:([a-z]+)=)?(.*)$/s.exec(argument) ?? []
  if (kind !== undefined && kind !== 'bootstrap') throw new CodedError('BUILD_INVALID_OPTION', `--chunk-dict: unknown kind '${kind}', want bootstrap=PATH`, { kind })
  return readBootstrap(file ?? argument)
}

/** Patterns come from stdin, and only when a policy asks for them: a caller without a policy may leave stdin open. */
export function readPrefetch(policy: string): PrefetchOptions {
  const known = PREFETCH_POLICIES.find((one) => one === policy) ?? 'none'
  return { policy: known, patterns: known === 'none' ? [] : parsePrefetchPatterns(readFileSync(0)) }
}

/**
 * Writes a bootstrap to `file`, or into `directory` under its sha256; resolves to the path. In a directory of blobs a half-written file must
 * not carry the final name. BUILD_OUTPUT.
 */
export function writeBootstrap(bytes: Uint8Array, to: { readonly file?: string | undefined; readonly directory?: string | undefined }): string {
  const target = to.file ?? path.join(to.directory ?? '.', createHash('sha256').update(bytes).digest('hex'))
  writeWhole(target, bytes)
  return target
}

/** A file of these bytes: complete under its name or not there. A FIFO or device is written as it is. BUILD_OUTPUT. */
export function writeWhole(file: string, bytes: Uint8Array | string): void {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${randomUUID()}.partial`)
  try {
    if (isSpecial(file)) { writeFileSync(file, bytes); return }
    writeFileSync(temporary, bytes, { flag: 'wx' })
    renameSync(temporary, file)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw new CodedError('BUILD_OUTPUT', `cannot write ${file}: ${error instanceof Error ? error.message : String(error)}`, { file }, { cause: error })
  }
}

/** The object of `--output-json`, pretty, as upstream prints it. */
export function writeOutputJson(file: string | undefined, output: BuildOutput): void {
  if (file !== undefined) writeWhole(file, JSON.stringify(output, undefined, 2))
}

/** Log lines on stderr: warnings of the build, and at `info` a summary. Resolves to the writer of the summary. */
export function logTo(command: Command): (text: string) => void {
  const level = LOG_LEVELS.indexOf(globalOption(command, 'logLevel') as LogLevel) // SAFETY: commander checked the choice
  const file = globalOption(command, 'logFile')
  const write = (at: (typeof LOG_LEVELS)[number], text: string) => {
    if (LOG_LEVELS.indexOf(at) < level) return
    const line = `[${new Date().toISOString()}] ${at.toUpperCase()} ${text}\n`
    if (typeof file === 'string') writeFileSync(file, line, { flag: 'a' })
    else process.stderr.write(line)
  }
  subscribe('build:source:warning', ({ path: where, reason }: Events['build:source:warning']) => write('warn', `${where}: ${reason}`))
  return (text) => write('info', text)
}

function isSpecial(file: string): boolean {
  try {
    return !statSync(file).isFile()
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return false
    throw error
  }
}

function readOrFail(file: string): Uint8Array {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new CodedError('BUILD_SOURCE', `cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`, { file }, { cause: error })
  }
}

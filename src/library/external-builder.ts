// Packs and merges layers with an upstream-compatible nydus-image, called as upstream's converter calls it. SPEC: spec-surface.md A.10 #1, #5.
//
//   layer ─► socket ─► FIFO blob.targz ─► nydus-image create ─► FIFO blob.rafs ─► socket ─► sink

import { spawn } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { CodedError, foreignText, isSystemError } from '../core/errors.ts'
import { splitDigest } from '../format/oci/digest.ts'
import { S_IFIFO } from '../format/erofs/inode.ts'
import type { LayerBuilder, PackSettings } from '../image/index.ts'
import { native } from '../native/load.ts'

/** LIMIT: what a child may say before only the end counts. */
const MAX_MESSAGE = 16 * 1024
/** A FIFO cannot be waited for without blocking a thread; children open theirs within some milliseconds. */
const OPEN_POLL_MS = 3

/** The builder at `file`. BUILD_INVALID_OPTION when it cannot be run. */
export async function externalBuilder(file: string, { signal }: { signal: AbortSignal }): Promise<LayerBuilder> {
  const told = await run(file, ['--version'], { input: '', signal })
  // COMPAT: upstream's regular expression; without a match the annotation is left empty
  const version = /Version:\s*(v.*)/.exec(told)?.[1]?.trim() ?? ''
  return {
    version,
    async pack(tar, { settings, sink, scratch, signal: abort }) {
      const directory = await mkdtemp(path.join(scratch, 'pack-'))
      try {
        const [source, blob] = [path.join(directory, 'blob.targz'), path.join(directory, 'blob.rafs')]
        makeFifo(source)
        makeFifo(blob)
        const reader = openSync(blob, constants.O_RDONLY | constants.O_NONBLOCK)
        const keeper = openSync(blob, constants.O_WRONLY | constants.O_NONBLOCK) // until the child's end: before it opens the FIFO there is no end of file either
        const childEnded = new AbortController()
        const done = run(file, packArguments(settings, { source, blob }), { input: settings.prefetchPatterns, signal: abort }).finally(() => {
          childEnded.abort(new CodedError('BUILD_SOURCE', `${file} ended before it read its source`))
          closeSync(keeper)
        })
        const reading = (async () => { for await (const piece of new Socket({ fd: reader, readable: true, writable: false })) await sink.write(piece) })()
        const writing = feed(source, tar, childEnded.signal)
        const results = await Promise.allSettled([done, writing, reading])
        // the child's own words first: the pipes break because of it
        for (const result of results) if (result.status === 'rejected') throw result.reason
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    },
    async merge(layers, { settings, scratch, signal: abort }) {
      const directory = await mkdtemp(path.join(scratch, 'merge-'))
      try {
        const sources: string[] = []
        for (const { digest, bootstrap } of layers) {
          const name = path.join(directory, splitDigest(digest).hex) // the file's name is the blob's id
          await writeFile(name, bootstrap)
          sources.push(name)
        }
        const output = path.join(directory, 'bootstrap')
        const json = path.join(directory, 'merge-output.json')
        await run(file, mergeArguments(settings, { sources, output, json }), { input: settings.prefetchPatterns, signal: abort })
        return { bootstrap: await readFile(output), blobs: blobsOf(await readFile(json, 'utf8')) }
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    },
  }
}

function packArguments(settings: PackSettings, { source, blob }: { source: string; blob: string }): string[] {
  const { compressor, alignedChunk, chunkSize, batchSize, chunkDict } = settings
  return [
    'create', '--log-level', 'warn', '--prefetch-policy', 'fs', '--blob', blob, '--whiteout-spec', 'none', '--fs-version', '6',
    '--type', 'tar-rafs', '--blob-inline-meta', '--features', 'blob-toc',
    ...(chunkDict === undefined ? [] : ['--chunk-dict', `bootstrap=${chunkDict.path}`]),
    '--compressor', compressor,
    ...(alignedChunk ? ['--aligned-chunk'] : []),
    '--chunk-size', `0x${chunkSize.toString(16)}`,
    ...(batchSize === 0 ? [] : ['--batch-size', `0x${batchSize.toString(16)}`]),
    source,
  ]
}

function mergeArguments({ chunkDict }: PackSettings, { sources, output, json }: { sources: readonly string[]; output: string; json: string }): string[] {
  return [
    'merge', '--log-level', 'warn', '--prefetch-policy', 'fs', '--output-json', json, '--bootstrap', output,
    ...(chunkDict === undefined ? [] : ['--chunk-dict', `bootstrap=${chunkDict.path}`]),
    ...sources,
  ]
}

function makeFifo(name: string): void {
  const result = native().mknod(Buffer.from(name), S_IFIFO | 0o600, 0)
  if (result < 0) throw new CodedError('BUILD_OUTPUT', `cannot make the FIFO ${name}: errno ${-result}`, { errno: -result })
}

/** Writes `tar` into a FIFO once its reader has come: one who opened it after the last writer left would wait for ever. */
async function feed(fifo: string, tar: AsyncIterable<Uint8Array>, childEnded: AbortSignal): Promise<void> {
  const socket = new Socket({ fd: await openForReader(fifo, childEnded), readable: false, writable: true })
  const failed = new Promise<never>((_, reject) => socket.on('error', reject))
  failed.catch(() => {})
  try {
    // each piece until it is written: its buffer is used for the next but one
    for await (const piece of tar) await Promise.race([new Promise((resolve) => socket.write(piece, resolve)), failed])
    await Promise.race([new Promise<void>((resolve) => socket.end(resolve)), failed])
  } finally {
    socket.destroy()
  }
}

async function openForReader(fifo: string, childEnded: AbortSignal): Promise<number> {
  for (;;) {
    childEnded.throwIfAborted()
    try {
      return openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
    } catch (error) {
      if (!isSystemError(error, 'ENXIO')) throw error // ENXIO: nobody reads it yet
      await delay(OPEN_POLL_MS)
    }
  }
}

/** Runs the builder; resolves with its stdout. BUILD_SOURCE with the end of what it said when it fails; the signal kills it. */
async function run(file: string, argv: readonly string[], { input, signal }: { input: string; signal: AbortSignal }): Promise<string> {
  signal.throwIfAborted()
  const child = spawn(file, argv, { stdio: ['pipe', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL' })
  let output = ''
  let said = ''
  child.stdout.on('data', (data) => { output = (output + String(data)).slice(0, MAX_MESSAGE) })
  child.stderr.on('data', (data) => { said = (said + String(data)).slice(-MAX_MESSAGE) })
  child.stdin.on('error', () => {}) // a child that does not read its patterns is none the worse
  child.stdin.end(input)
  const [code, killedBy] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.on('error', (cause) => reject(signal.aborted ? signal.reason : new CodedError('BUILD_INVALID_OPTION', `${file} cannot be run`, { file }, { cause })))
    child.on('close', (exit, name) => resolve([exit, name]))
  })
  signal.throwIfAborted()
  if (code !== 0) throw new CodedError('BUILD_SOURCE', `${path.basename(file)} ${argv[0]} ended with ${killedBy ?? code}: ${foreignText(said.trim(), 2000)}`, { file, exitCode: code ?? 0 })
  return output
}

function blobsOf(text: string): string[] {
  const value: unknown = JSON.parse(text)
  const blobs: unknown = typeof value === 'object' && value !== null && 'blobs' in value ? value.blobs : undefined
  if (!Array.isArray(blobs)) throw new CodedError('BUILD_SOURCE', 'the output of merge names no blobs')
  return blobs.filter((blob) => typeof blob === 'string')
}

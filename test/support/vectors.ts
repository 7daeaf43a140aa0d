// The cases of fixtures/vectors by what a reader should do with them.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { VECTORS } from './expect.ts'

/** A bootstrap of a case, its blob id from its name where it was found inside a blob. */
export interface VectorBootstrap { readonly name: string; readonly file: string; readonly bytes: Buffer; readonly blobIdFromName: string }

/** Folders of fixtures/vectors with a bootstrap. */
export function caseNames(): string[] {
  return readdirSync(VECTORS).filter((name) => name !== 'blobs' && statSync(path.join(VECTORS, name)).isDirectory() && bootstrapsOf(name).length > 0)
}

/** All bootstraps of a case. */
export function bootstrapsOf(name: string): VectorBootstrap[] {
  return readdirSync(path.join(VECTORS, name)).filter((file) => /\.(boot|external)$|^[0-9a-f]{64}$/.test(file)).map((file) => (
    { name, file, bytes: readFileSync(path.join(VECTORS, name, file)), blobIdFromName: file.replace(/\..*$/, '') }))
}

/** The main bootstrap of a case. */
export function bootstrapOf(name: string): VectorBootstrap {
  return bootstrapsOf(name).find(({ file }) => !file.endsWith('.external'))!
}

/** Cases whose image this version refuses, with the reason that it gives. */
export const UNSUPPORTED_CASES: Readonly<Record<string, RegExp>> = {
  'v5-small-none': /RAFS v5/, 'v6-encrypt-lz4': /encrypted/, 'zran-lower': /zran/, 'zran-plain-tar': /OCI layer/, 'tarfs-upper': /tarfs/,
}
/** Upstream cannot load these either: an unfinished optimization, and a list of chunks that is no tree. */
export const BROKEN_CASES: readonly string[] = ['optimize-v6', 'chunkdict-generate']

/** Cases that this version reads. */
export function readableCases(): string[] {
  return caseNames().filter((name) => name !== 'should-fail' && UNSUPPORTED_CASES[name] === undefined && !BROKEN_CASES.includes(name))
}

export interface Mutation {
  readonly name: string
  readonly what: string
  readonly patches: readonly (readonly [offset: number, hex: string])[]
  readonly truncate?: number
  readonly append?: string
  /** Upstream's verdict: exit code of `check`, negative for a signal. */
  readonly check: { readonly exit: number }
  readonly nydusd: { readonly mount?: string; readonly scan?: string }
  /** What the kernel's EROFS driver made of it. */
  readonly kernel?: string
}

/** The damaged bootstraps of should-fail/mutations.jsonl. */
export function mutations(): Mutation[] {
  return readFileSync(path.join(VECTORS, 'should-fail/mutations.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line))
}

/** `base` as a mutation leaves it. */
export function mutated(base: Uint8Array, { patches, truncate, append = '' }: Mutation): Buffer {
  const patched = Buffer.from(base)
  for (const [offset, hex] of patches) Buffer.from(hex, 'hex').copy(patched, offset)
  const tail = append.startsWith('zeros:') ? Buffer.alloc(Number(append.slice('zeros:'.length))) : Buffer.from(append, 'hex')
  return Buffer.concat([patched.subarray(0, truncate ?? patched.length), tail])
}

// Everything that a daemon must hand on so that another process continues its connection: versioned, checksummed JSON. The descriptor of
// the connection travels beside it. Nothing in it depends on what clients did, because the FUSE core keeps nothing about them.

import { createHash } from 'node:crypto'
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { CodedError, foreignText } from '../../core/errors.ts'
import type { Connection } from '../fuse/connection.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import type { SavedMountRow } from './mounts.ts'

/** LIMIT: far above any real state; a file larger than this is none. */
const MAX_STATE_BYTES = 16 * 2 ** 20
const FORMAT = 'nydus-ts daemon state'
/** Raised when an older reader could misunderstand a newer state. */
export const STATE_VERSION = 2
/** Of a daemon that had one image, on `/`. */
const SINGLE_IMAGE_VERSION = 1

export interface SavedState {
  readonly id: string
  /** Of the FUSE mount in this name space. */
  readonly mountpoint: string
  /** Outcome of INIT, which the kernel sends once. */
  readonly connection: Connection
  /** Serials of mounts and numbers of directories are never used twice, so that a node id of a past mount stays invalid. */
  readonly lastSerial: number
  readonly lastDirectory: number
  /** Their configurations may hold credentials, so state files are private (0600). */
  readonly mounts: readonly SavedMountRow[]
}

/** State → bytes. */
export function encodeState(state: SavedState): Buffer {
  const body = JSON.stringify(state)
  return Buffer.from(`${JSON.stringify({ format: FORMAT, version: STATE_VERSION, sha256: digestOf(body), body })}\n`)
}

/** Bytes → state. @throws SERVE_BAD_STATE_FILE for anything but what `encodeState` of this version or an earlier one wrote */
export function decodeState(bytes: Uint8Array): SavedState {
  const envelope = parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'))
  if (envelope['format'] !== FORMAT) throw bad('not a daemon state')
  const version = envelope['version']
  if (version !== STATE_VERSION && version !== SINGLE_IMAGE_VERSION) throw bad(`version ${foreignText(String(envelope['version']), 20)}, this program reads ${STATE_VERSION}`)
  const body = envelope['body']
  if (typeof body !== 'string' || envelope['sha256'] !== digestOf(body)) throw bad('its digest is wrong: truncated or damaged')
  const state = version === SINGLE_IMAGE_VERSION ? fromSingleImage(parse(body)) : parse(body)
  if (!isState(state)) throw bad('a field is missing or of the wrong type')
  return state
}

/** Writes atomically (temporary file, rename), readable by its owner only. */
export function writeStateFile(file: string, state: SavedState): void {
  const temporary = `${file}.${process.pid}.tmp`
  try {
    writeFileSync(temporary, encodeState(state), { mode: 0o600, flush: true })
    renameSync(temporary, file)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** @throws SERVE_BAD_STATE_FILE; errors of the file system as they are */
export function readStateFile(file: string): SavedState {
  const bytes = readFileSync(file)
  if (bytes.length > MAX_STATE_BYTES) throw bad(`${bytes.length} bytes`)
  return decodeState(bytes)
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    // SAFETY: an object by the check; its fields stay unknown.
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  throw bad('not JSON')
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0
const isText = (value: unknown): boolean => typeof value === 'string'
const isFlag = (value: unknown): boolean => typeof value === 'boolean'

const MOUNT_FIELDS: Readonly<Record<keyof SavedMountRow, (value: unknown) => boolean>> = {
  serial: isCount, mountpoint: isText, type: (value) => value === 'Rafs' || value === 'PassthroughFs', source: isText, config: isText, mountedAt: isText,
  directories: (value) => Array.isArray(value) && value.every(isCount),
}
const CONNECTION_FIELDS: Readonly<Record<keyof Connection, (value: unknown) => boolean>> = {
  xattrs: isFlag, writable: isFlag, minor: isCount, flags: isCount, flags2: isCount, maxReadahead: isCount, zeroMessageOpens: isFlag,
}
const STATE_FIELDS: Readonly<Record<keyof SavedState, (value: unknown) => boolean>> = {
  id: isText, mountpoint: isText, lastSerial: isCount, lastDirectory: isCount,
  connection: (value) => fits(CONNECTION_FIELDS, value),
  mounts: (value) => Array.isArray(value) && value.every((mount) => fits(MOUNT_FIELDS, mount)),
}

/** Version 1: `bootstrap` for `source`, one mount at most, on `/`. */
function fromSingleImage({ rootSerial: _, mounts, ...state }: Record<string, unknown>): Record<string, unknown> {
  const rows = Array.isArray(mounts) ? mounts.map((mount: unknown) => {
    const { bootstrap: source, ...row } = Object.fromEntries(typeof mount === 'object' && mount !== null ? Object.entries(mount) : [])
    return { ...row, type: 'Rafs', source, directories: [] }
  }) : undefined
  return { ...state, mounts: rows, lastDirectory: FUSE_ROOT_ID }
}

function isState(value: Record<string, unknown>): value is Record<string, unknown> & SavedState {
  return fits(STATE_FIELDS, value)
}

function fits(fields: Readonly<Record<string, (value: unknown) => boolean>>, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const record = new Map<string, unknown>(Object.entries(value))
  return Object.entries(fields).every(([name, check]) => check(record.get(name)))
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function bad(why: string): CodedError {
  return new CodedError('SERVE_BAD_STATE_FILE', `the saved daemon state cannot be used: ${why}`)
}

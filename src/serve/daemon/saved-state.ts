// Everything that a daemon must hand on so that another process continues its connection: versioned, checksummed JSON. The descriptor of
// the connection travels beside it. Nothing in it depends on what clients did, because the FUSE core keeps nothing about them.

import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import type { Connection } from '../fuse/connection.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import type { SavedMountRow } from './mounts.ts'
import { badState, type Fields, fits, isCount, isFlag, isListOf, isMissingOr, isText, seal, unseal } from './sealed.ts'

/** LIMIT: far above any real state; a file larger than this is none. */
const MAX_STATE_BYTES = 16 * 2 ** 20
const FORMAT = 'nydus-ts daemon state'
/** Raised when an older reader could misunderstand a newer state. */
export const STATE_VERSION = 2
/** Of a daemon that had one image, on `/`. */
const SINGLE_IMAGE_VERSION = 1

export interface SavedState {
  readonly id: string
  /** Of the FUSE mount in this name space; of a virtual machine's device its socket. */
  readonly mountpoint: string
  /** Outcome of INIT, which the kernel sends once. A device keeps nothing of it. */
  readonly connection?: Connection | undefined
  /** Serials of mounts and numbers of directories are never used twice, so that a node id of a past mount stays invalid. */
  readonly lastSerial: number
  readonly lastDirectory: number
  /** Their configurations may hold credentials, so state files are private (0600). */
  readonly mounts: readonly SavedMountRow[]
}

/** State → bytes. */
export function encodeState(state: SavedState): Buffer {
  return seal(FORMAT, STATE_VERSION, state)
}

/** Bytes → state. @throws SERVE_BAD_STATE_FILE for anything but what `encodeState` of this version or an earlier one wrote */
export function decodeState(bytes: Uint8Array): SavedState {
  const { version, body } = unseal(bytes, FORMAT, [STATE_VERSION, SINGLE_IMAGE_VERSION])
  const state = version === SINGLE_IMAGE_VERSION ? fromSingleImage(body) : body
  if (!fits(STATE_FIELDS, state)) throw badState('a field is missing or of the wrong type')
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
  if (bytes.length > MAX_STATE_BYTES) throw badState(`${bytes.length} bytes`)
  return decodeState(bytes)
}

const MOUNT_FIELDS: Fields<SavedMountRow> = {
  serial: isCount, mountpoint: isText, type: (value) => value === 'Rafs' || value === 'PassthroughFs', source: isText, config: isText, mountedAt: isText, directories: isListOf(isCount),
}
const CONNECTION_FIELDS: Fields<Connection> = {
  xattrs: isFlag, writable: isFlag, minor: isCount, flags: isCount, flags2: isCount, maxReadahead: isCount, zeroMessageOpens: isFlag,
}
const STATE_FIELDS: Fields<SavedState> = {
  id: isText, mountpoint: isText, lastSerial: isCount, lastDirectory: isCount,
  connection: isMissingOr((value) => fits(CONNECTION_FIELDS, value)), mounts: isListOf((mount) => fits(MOUNT_FIELDS, mount)),
}

/** Version 1: `bootstrap` for `source`, one mount at most, on `/`. */
function fromSingleImage({ rootSerial: _, mounts, ...state }: Record<string, unknown>): Record<string, unknown> {
  const rows = Array.isArray(mounts) ? mounts.map((mount: unknown) => {
    const { bootstrap: source, ...row } = Object.fromEntries(typeof mount === 'object' && mount !== null ? Object.entries(mount) : [])
    return { ...row, type: 'Rafs', source, directories: [] }
  }) : undefined
  return { ...state, mounts: rows, lastDirectory: FUSE_ROOT_ID }
}

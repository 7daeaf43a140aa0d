// Everything that a daemon must hand on so that another process continues its connection: versioned, checksummed JSON. The descriptor of
// the connection travels beside it. Nothing in it depends on what clients did, because the FUSE core keeps nothing about them. Configurations and what
// was changed of them are hidden: they may hold credentials.

import type { Connection } from '../fuse/connection.ts'
import { FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import type { SavedMountRow } from './mounts.ts'
import { badState, type Fields, fits, isCount, isFlag, isListOf, isMissingOr, isText, parse, seal, unseal } from './sealed.ts'

const FORMAT = 'nydus-ts daemon state'
/** Raised when an older reader could misunderstand a newer state. */
export const STATE_VERSION = 3
/** Of a daemon that showed its configurations. */
const PLAIN_VERSION = 2
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
  readonly mounts: readonly SavedMountRow[]
}

/** Hides texts from those who keep the state. */
export interface Hiding {
  hide(text: string): string
  /** @throws SERVE_BAD_STATE_FILE */
  reveal(hidden: string): string
}

/** State → bytes. */
export function encodeState(state: SavedState, secrets: Hiding): Buffer {
  return seal(FORMAT, STATE_VERSION, { ...state, mounts: state.mounts.map(({ config, changes, ...row }) => ({ ...row, hidden: secrets.hide(JSON.stringify({ config, changes })) })) })
}

/** Bytes → state. @throws SERVE_BAD_STATE_FILE for anything but what `encodeState` of this version or an earlier one wrote, with the same `secrets` */
export function decodeState(bytes: Uint8Array, secrets: Hiding): SavedState {
  const { version, body } = unseal(bytes, FORMAT, [STATE_VERSION, PLAIN_VERSION, SINGLE_IMAGE_VERSION])
  const state = version === STATE_VERSION ? revealed(body, secrets) : version === PLAIN_VERSION ? body : fromSingleImage(body)
  if (!fits(STATE_FIELDS, state)) throw badState('a field is missing or of the wrong type')
  return state
}

const MOUNT_FIELDS: Fields<SavedMountRow> = {
  serial: isCount, mountpoint: isText, type: (value) => value === 'Rafs' || value === 'PassthroughFs', source: isText, config: isText, mountedAt: isText, directories: isListOf(isCount),
  changes: isMissingOr((value) => typeof value === 'object' && value !== null && Object.values(value).every(isText)),
}
const CONNECTION_FIELDS: Fields<Connection> = {
  xattrs: isFlag, writable: isFlag, minor: isCount, flags: isCount, flags2: isCount, maxReadahead: isCount, zeroMessageOpens: isFlag,
}
const STATE_FIELDS: Fields<SavedState> = {
  id: isText, mountpoint: isText, lastSerial: isCount, lastDirectory: isCount,
  connection: isMissingOr((value) => fits(CONNECTION_FIELDS, value)), mounts: isListOf((mount) => fits(MOUNT_FIELDS, mount)),
}

function revealed(state: Record<string, unknown>, secrets: Hiding): Record<string, unknown> {
  const { mounts } = state
  if (!isListOf(isHidden)(mounts)) throw badState('a field is missing or of the wrong type')
  // SAFETY: a list of such objects by the check.
  return { ...state, mounts: (mounts as { hidden: string }[]).map(({ hidden, ...row }) => ({ ...row, ...parse(secrets.reveal(hidden)) })) }
}

function isHidden(value: unknown): value is { hidden: string } {
  return typeof value === 'object' && value !== null && 'hidden' in value && isText(value.hidden)
}

/** Version 1: `bootstrap` for `source`, one mount at most, on `/`. */
function fromSingleImage({ rootSerial: _, mounts, ...state }: Record<string, unknown>): Record<string, unknown> {
  const rows = Array.isArray(mounts) ? mounts.map((mount: unknown) => {
    const { bootstrap: source, ...row } = Object.fromEntries(typeof mount === 'object' && mount !== null ? Object.entries(mount) : [])
    return { ...row, type: 'Rafs', source, directories: [] }
  }) : undefined
  return { ...state, mounts: rows, lastDirectory: FUSE_ROOT_ID }
}

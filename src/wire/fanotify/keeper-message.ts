// Messages between nydusd and the keeper of its fanotify descriptors. A packet (SOCK_SEQPACKET) is one row with descriptors beside it, or several without.
// SPEC: native/keeper/keeper.h, struct Row and the enumerations after it; this repository's own protocol.

import { size64, struct, u32, type Decoded } from '../../core/struct.ts'

export type KeeperRow = Decoded<typeof keeperRow>
export const keeperRow = struct('KeeperRow', 40, [
  [ 0, 'kind',   u32,    'one of KEEPER'],
  [ 4, 'file',   u32,    'which of the kept files'],
  [ 8, 'event',  u32,    'which question'],
  [12, 'error',  u32,    'errno, 0 = none'],
  [16, 'offset', size64, 'bytes: of the range that a question is about'],
  [24, 'length', size64, 'bytes'],
  [32, 'serial', size64, 'of the question, back in its answer: numbers of questions are used again'],
])

export const KEEPER = {
  /** From the server: hear what there is; keep the descriptor, mark its file; the file is no device any more; the read may go on (or fail); what the next server wants to know; this one ends on purpose; the file is complete, synced and verified: nobody needs to ask. */
  HELLO: 1, KEEP: 2, RELEASE: 3, ANSWER: 4, STATE: 5, BYE: 6, COMPLETE: 7,
  /** To the server: fanotify's own descriptor and the state, if there is one; a kept file; a question; how KEEP, RELEASE, STATE and COMPLETE went. */
  WELCOME: 32, FILE_KEPT: 33, EVENT: 34, KEPT: 35, RELEASED: 36, STATED: 37, COMPLETED: 38,
} as const

/** LIMIT: native/keeper/keeper.h MAX_FILES: this number in FILE_KEPT says that there is no more. */
export const MAX_KEPT_FILES = 1024
/** LIMIT: native/keeper/keeper.h MAX_ROWS and MAX_PACKET. */
export const MAX_ROWS = 64
export const MAX_PACKET = 64 * 1024

const NONE = { file: 0, event: 0, error: 0, offset: 0, length: 0, serial: 0 }

/** Rows as a packet. */
export function encodeRows(rows: readonly (Partial<KeeperRow> & Pick<KeeperRow, 'kind'>)[]): Uint8Array {
  const bytes = new Uint8Array(rows.length * keeperRow.size)
  for (const [index, row] of rows.entries()) keeperRow.encode({ ...NONE, ...row }, bytes, index * keeperRow.size)
  return bytes
}

/** The rows of a packet; what follows the last whole one is not looked at. */
export function decodeRows(packet: Uint8Array): KeeperRow[] {
  return Array.from({ length: Math.floor(packet.length / keeperRow.size) }, (_, index) => keeperRow.decode(packet, index * keeperRow.size))
}

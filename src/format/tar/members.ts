// A whole small archive at once, for what is in memory anyway: bootstrap layers, archives of manifests.

import { CodedError } from '../../core/errors.ts'
import { toText } from '../../core/byte-string.ts'
import type { TarEntry } from './entry.ts'
import { TarReader } from './reader.ts'

/** An entry and its contents, holes filled with zeros; no bytes for everything that is no file. */
export interface TarMember { readonly entry: TarEntry; readonly contents: Uint8Array }

/**
 * All members of `archive`, in order. `maxSize` bounds what one sparse file may unfold to (bytes). Contents of other files are views of `archive`.
 * Throws the codes of `TarReader`, and FORMAT_OUT_OF_RANGE for a sparse file above `maxSize`.
 */
export function readMembers(archive: Uint8Array, { maxSize }: { maxSize: number }): TarMember[] {
  const members: TarMember[] = []
  const reader = new TarReader()
  reader.push(archive)
  reader.finish()
  let contents: Uint8Array = new Uint8Array(0)
  let entry: TarEntry | undefined
  for (;;) {
    const event = reader.next()!
    switch (event.type) {
      case 'entry':
        entry = event.entry
        if (entry.sparse !== undefined && entry.size > maxSize) throw new CodedError('FORMAT_OUT_OF_RANGE', `"${toText(entry.path)}" unfolds to ${entry.size} bytes, more than ${maxSize}`)
        contents = new Uint8Array(entry.sparse === undefined ? 0 : entry.size)
        break
      case 'data':
        if (entry!.sparse === undefined) contents = event.bytes
        else contents.set(event.bytes, event.offset)
        break
      case 'end-entry': members.push({ entry: entry!, contents }); break
      case 'end': return members
    }
  }
}

// A tar reader that is pushed bytes and pulled for events. It reads nothing itself, waits for nothing and copies no file data.
// SPEC: POSIX.1-2017 pax "ustar", "pax Extended Header"; GNU tar manual, appendices on the format and on sparse files.
//
//            ┌── x g L K: payload ◄──┐
//            ▼                       │
//   push ─► header ─► (gnu-sparse │ sparse-text)* ─► entry ─► data* ─► end-entry ─► padding ─► header … end
//            ▲
//            └── V: skip, zero blocks

import { toText } from '../../core/byte-string.ts'
import { CodedError, type ErrorCode, foreignText } from '../../core/errors.ts'
import { roundUp } from '../../core/units.ts'
import { type Fail, MAX_METADATA, type TarEntry, type TarEvent } from './entry.ts'
import { BLOCK_SIZE, blockKind, gnuHeader, headerPath, isGnuHeader, TYPE_FLAG, ustarHeader } from './header.ts'
import { TarInput } from './input.ts'
import { type Extensions, rawPath, readNumber, storedSize, toEntry } from './member.ts'
import { noPaxFields, type PaxFields, type PaxSparse, readPax } from './pax.ts'
import { checkSegments, readGnuSegments, SparseMapText } from './sparse.ts'

type Phase = 'header' | 'payload' | 'gnu-sparse' | 'sparse-text' | 'data' | 'padding' | 'skip'
/** What a step leads to: an event, more steps, or a wait for more input. */
type Step = TarEvent | 'again' | 'starved'
type Metadata = 'local' | 'global' | 'longName' | 'longLink'

const END_ENTRY: TarEvent = { type: 'end-entry' }
const END: TarEvent = { type: 'end' }

const METADATA: ReadonlyMap<number, Metadata> = new Map([
  [TYPE_FLAG.paxLocal, 'local'], [TYPE_FLAG.solarisPaxLocal, 'local'], [TYPE_FLAG.paxGlobal, 'global'],
  [TYPE_FLAG.gnuLongName, 'longName'], [TYPE_FLAG.gnuLongLink, 'longLink'],
])

/**
 * ```
 * const reader = new TarReader()
 * for (const chunk of input) { reader.push(chunk); for (let event; (event = reader.next()); ) use(event) }
 * reader.finish()
 * for (let event; (event = reader.next())?.type !== 'end'; ) use(event)
 * ```
 * Errors: TAR_INVALID, TAR_TRUNCATED, TAR_UNSAFE_PATH, each with the entry's name and place. After an error the reader is of no more use.
 * Memory: at most one extended header (1 MiB), the global ones (1 MiB) and one sparse map, whatever an archive claims.
 */
export class TarReader {
  readonly #input = new TarInput()
  #ended = false
  #phase: Phase = 'header'
  /** Whether zero blocks came since the last header. */
  #afterZeros = false

  // What extended headers said for the next member, and the one being read.
  #global: PaxFields = noPaxFields()
  #local: PaxFields | undefined
  #longName: string | undefined
  #longLink: string | undefined
  #payload: { readonly kind: Metadata; readonly size: number } = { kind: 'local', size: 0 }

  // The member at hand: its name as written, its bytes in the archive, and what is left of them.
  #path = ''
  #headerOffset = 0
  #stored = 0
  #remaining = 0
  #entry: TarEntry | undefined
  #pairs: number[] = []
  #map: SparseMapText | undefined

  // Where in the file the next data goes, and what is left of its sparse segment.
  #fileOffset = 0
  #segment = 0
  #segmentRemaining = 0

  /** Hands over the next bytes. The chunk must stay unchanged until `next` returned undefined; only then may another be pushed. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk)
  }

  /** Says that no more bytes come. From then on `next` ends with an `end` event or an error, never with undefined. */
  finish(): void {
    this.#ended = true
  }

  /** The next event, or undefined when more input is needed first. */
  next(): TarEvent | undefined {
    for (;;) {
      const step = this.#step()
      if (step === 'starved') return this.#ended ? this.#end() : undefined
      if (step !== 'again') return step
    }
  }

  #step(): Step {
    switch (this.#phase) {
      case 'header': return this.#input.takeBlock() ? this.#header() : 'starved'
      case 'data': return this.#data()
      case 'padding': case 'skip': return this.#skip()
      case 'payload': return this.#takePayload()
      case 'gnu-sparse': return this.#input.takeBlock() ? this.#gnuSparse('continuation') : 'starved'
      case 'sparse-text': return this.#sparseText()
    }
  }

  #header(): Step {
    const { block, blockAt, offset } = this.#input
    const kind = blockKind(block, blockAt)
    if (kind === 'zero') {
      // COMPAT: upstream's reader goes on behind zero blocks, to the end of input; so joined archives are read whole and garbage is noticed.
      this.#afterZeros = true
      return 'again'
    }
    this.#headerOffset = offset - BLOCK_SIZE
    if (kind === 'other') throw this.#noHeader()
    this.#afterZeros = false
    const flag = block[blockAt + ustarHeader.offsetOf.typeFlag]!
    const metadata = METADATA.get(flag)
    return metadata === undefined ? this.#member(flag) : this.#beginPayload(metadata)
  }

  #beginPayload(kind: Metadata): Step {
    const { block, blockAt } = this.#input
    this.#path = headerPath(block, blockAt)
    const size = readNumber(block, blockAt, { offset: ustarHeader.offsetOf.size, size: 12, name: 'size', fail: this.#fail })
    if (size > MAX_METADATA) throw this.#fail(`an extended header of ${size} bytes; at most ${MAX_METADATA} are read`)
    const earlier = { local: this.#local, longName: this.#longName, longLink: this.#longLink, global: undefined }[kind]
    if (earlier !== undefined) throw this.#fail('two extended headers of one kind for one member')
    this.#payload = { kind, size }
    this.#phase = 'payload'
    return 'again'
  }

  #takePayload(): Step {
    const payload = this.#input.takePayload(this.#payload.size)
    if (payload === undefined) return 'starved'
    this.#phase = 'header'
    switch (this.#payload.kind) {
      case 'local': readPax(payload, this.#local = noPaxFields(), { scope: 'local', fail: this.#fail }); break
      case 'global': readPax(payload, this.#global, { scope: 'global', fail: this.#fail }); break
      case 'longName': this.#longName = untilNul(payload); break
      case 'longLink': this.#longLink = untilNul(payload); break
    }
    return 'again'
  }

  #member(flag: number): Step {
    const { block, blockAt, offset } = this.#input
    const extensions: Extensions = { local: this.#local, global: this.#global, longName: this.#longName, longLink: this.#longLink }
    this.#local = this.#longName = this.#longLink = undefined
    const header = { block, at: blockAt, headerOffset: this.#headerOffset, dataOffset: offset }
    const path = rawPath(header, extensions)
    this.#path = path
    this.#stored = storedSize(header, extensions, this.#fail)
    if (flag === TYPE_FLAG.gnuVolume) {
      // The label of a volume is no file. It has no data; if it claims some, they are left out.
      this.#remaining = roundUp(this.#stored, BLOCK_SIZE)
      this.#phase = 'skip'
      return 'again'
    }
    const entry = toEntry(header, extensions, { path, stored: this.#stored, fail: this.#fail })
    // A dump directory carries names for GNU tar's incremental restore, which are left out; no other type but files has data.
    if (entry.type !== 'file' && flag !== TYPE_FLAG.gnuDumpDirectory) this.#stored = 0
    this.#remaining = this.#stored
    const sparse = extensions.local?.sparse
    if (flag === TYPE_FLAG.gnuSparse) return this.#beginGnuSparse(entry)
    if (sparse !== undefined && entry.type === 'file') return this.#beginPaxSparse(entry, sparse)
    return this.#begin(entry)
  }

  #begin(entry: TarEntry): Step {
    this.#entry = entry
    this.#fileOffset = 0
    this.#segment = 0
    this.#segmentRemaining = 0
    this.#phase = 'data'
    return { type: 'entry', entry }
  }

  #beginGnuSparse(entry: TarEntry): Step {
    const { block, blockAt } = this.#input
    if (!isGnuHeader(block, blockAt)) throw this.#fail('a sparse member (type "S") outside a GNU archive')
    const realSize = readNumber(block, blockAt, { offset: gnuHeader.offsetOf.realSize, size: 12, name: 'realsize', fail: this.#fail })
    this.#entry = { ...entry, size: realSize }
    this.#pairs = []
    return this.#gnuSparse('header')
  }

  #gnuSparse(form: 'header' | 'continuation'): Step {
    const { block, blockAt } = this.#input
    this.#phase = 'gnu-sparse'
    const more = readGnuSegments(block, blockAt, { form, pairs: this.#pairs, fail: this.#fail })
    return more ? 'again' : this.#endSparse(this.#pairs)
  }

  #beginPaxSparse(entry: TarEntry, { major = 0, minor = 0, realSize, pairs }: PaxSparse): Step {
    if (realSize === undefined) throw this.#fail('a sparse member without GNU.sparse.size or GNU.sparse.realsize')
    this.#entry = { ...entry, size: realSize }
    if (major === 0) return this.#endSparse(pairs)
    if (major !== 1 || minor !== 0) throw this.#fail(`GNU sparse format ${major}.${minor} is not known`)
    this.#map = new SparseMapText(this.#fail)
    this.#phase = 'sparse-text'
    return 'again'
  }

  #sparseText(): Step {
    if (this.#remaining < BLOCK_SIZE) throw this.#fail('its sparse map does not end')
    if (!this.#input.takeBlock()) return 'starved'
    this.#remaining -= BLOCK_SIZE
    const map = this.#map!
    return map.takeBlock(this.#input.block, this.#input.blockAt) ? this.#endSparse(map.pairs) : 'again'
  }

  #endSparse(pairs: readonly number[]): Step {
    const entry = this.#entry!
    const sparse = checkSegments(pairs, { realSize: entry.size, storedSize: this.#remaining, fail: this.#fail })
    return this.#begin({ ...entry, sparse, dataOffset: this.#input.offset })
  }

  #data(): Step {
    const { type, sparse } = this.#entry!
    if (this.#remaining === 0 || type !== 'file') {
      this.#remaining += roundUp(this.#stored, BLOCK_SIZE) - this.#stored
      this.#phase = 'padding'
      return END_ENTRY
    }
    let limit = this.#remaining
    if (sparse !== undefined) {
      if (this.#segmentRemaining === 0) [this.#fileOffset, this.#segmentRemaining] = sparse[this.#segment++]!
      limit = this.#segmentRemaining
    }
    const bytes = this.#input.takeRun(limit)
    if (bytes.length === 0) return 'starved'
    const offset = this.#fileOffset
    this.#fileOffset += bytes.length
    this.#segmentRemaining -= bytes.length
    this.#remaining -= bytes.length
    return { type: 'data', bytes, offset }
  }

  #skip(): Step {
    this.#remaining -= this.#input.skip(this.#remaining)
    if (this.#remaining > 0) return 'starved'
    this.#phase = 'header'
    return 'again'
  }

  #end(): TarEvent {
    const { offset, partialBlock } = this.#input
    // COMPAT: as for GNU tar, end blocks may be missing, and so may the padding of the last member.
    if (this.#phase === 'padding' && this.#remaining < BLOCK_SIZE) return END
    const pending = this.#local !== undefined || this.#longName !== undefined || this.#longLink !== undefined
    if (this.#phase === 'header' && !pending && partialBlock.every((byte) => byte === 0)) return END
    const missing = this.#phase === 'data' || this.#phase === 'skip' || this.#phase === 'padding' ? `${this.#remaining} of its ${this.#stored} bytes are missing` : 'its headers are not complete'
    const what = this.#phase === 'header' && !pending ? `inside a header${this.#name === '' ? '' : ` after "${this.#name}"`}` : `inside "${this.#name}": ${missing}`
    throw new CodedError('TAR_TRUNCATED', `tar archive ends at byte ${offset}, ${what}`, { entry: this.#name, offset })
  }

  readonly #fail: Fail = (why: string, code: ErrorCode = 'TAR_INVALID') => {
    const entry = this.#name
    return new CodedError(code, `tar entry "${entry}" at byte ${this.#headerOffset}: ${why}`, { entry, offset: this.#headerOffset })
  }

  /** The name for messages. */
  get #name(): string {
    return foreignText(toText(this.#path.slice(0, 1000)), 300)
  }

  #noHeader(): CodedError {
    const place = this.#afterZeros ? 'behind the end blocks' : this.#name === '' ? 'at the beginning' : `after "${this.#name}"`
    return new CodedError('TAR_INVALID', `no tar header (wrong checksum) at byte ${this.#headerOffset}, ${place}`, { entry: this.#name, offset: this.#headerOffset })
  }
}


function untilNul(payload: Buffer): string {
  const nul = payload.indexOf(0)
  return payload.toString('latin1', 0, nul < 0 ? payload.length : nul)
}

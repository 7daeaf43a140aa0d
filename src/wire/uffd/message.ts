// The messages between a virtual machine monitor and the server of its page faults: one JSON document each, descriptors beside them.
// SPEC: spec-surface.md E.4; nydus service/src/uffd_proto.rs.

import { CodedError } from '../../core/errors.ts'

export const UFFD_MESSAGE = { HANDSHAKE: 0, PAGE_FAULT: 1, STAT: 2, STAT_ANSWER: 3 } as const
export const UFFD_VERSION = 1
export const UFFD_POLICY = { ZERO_COPY: 0, COPY: 1 } as const
/** LIMIT: ranges, and so descriptors, of one message. */
export const MAX_RANGES = 16
/** LIMIT: a region is 200 bytes of JSON. */
export const MAX_MESSAGE = 64 * 1024

/** A part of the client's memory that shows a part of the disk. Bytes. */
export interface UffdRegion { readonly address: number; readonly size: number; readonly offset: number; readonly pageSize: number }

export type UffdRequest =
  | { readonly kind: 'stat' }
  | { readonly kind: 'handshake'; readonly regions: readonly UffdRegion[]; readonly policy: 0 | 1; readonly prefault: boolean }

/** A range of the disk that a file has: of PAGE_FAULT. */
export interface UffdRange { readonly len: number; readonly blob_offset: number; readonly block_offset: number }

/** @throws SERVE_BAD_GUEST for what is no request. A bare array of regions is a handshake with the defaults. */
export function parseUffdRequest(text: string): UffdRequest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new CodedError('SERVE_BAD_GUEST', 'a message of the monitor is no JSON', { length: text.length }, { cause })
  }
  if (Array.isArray(value)) return { kind: 'handshake', regions: value.map(regionOf), policy: UFFD_POLICY.ZERO_COPY, prefault: false }
  const type = fieldOf(value, 'type') ?? UFFD_MESSAGE.HANDSHAKE
  if (type === UFFD_MESSAGE.STAT) return { kind: 'stat' }
  const regions = fieldOf(value, 'regions')
  const policy = fieldOf(value, 'policy') ?? UFFD_POLICY.ZERO_COPY
  if (type !== UFFD_MESSAGE.HANDSHAKE || !Array.isArray(regions) || (policy !== UFFD_POLICY.ZERO_COPY && policy !== UFFD_POLICY.COPY)) {
    throw new CodedError('SERVE_BAD_GUEST', 'a message of the monitor is none that is known', {})
  }
  return { kind: 'handshake', regions: regions.map(regionOf), policy, prefault: fieldOf(value, 'enable_prefault') === true }
}

function regionOf(value: unknown): UffdRegion {
  const [address, size, offset, pageSize] = ['base_host_virt_addr', 'size', 'offset', 'page_size'].map((name) => fieldOf(value, name))
  const good = [address, size, offset, pageSize].every((number) => typeof number === 'number' && Number.isSafeInteger(number) && number >= 0)
  if (!good || typeof address !== 'number' || typeof size !== 'number' || typeof offset !== 'number' || typeof pageSize !== 'number' ||
      pageSize < 4096 || (pageSize & (pageSize - 1)) !== 0 || size === 0 || address % 4096 !== 0 || offset % 4096 !== 0 || size % 4096 !== 0) {
    throw new CodedError('SERVE_BAD_GUEST', 'a memory region of the monitor is impossible', {})
  }
  return { address, size, offset, pageSize }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

/**
 * Takes whole JSON documents off the front of `text`; returns them and the rest. Only braces and brackets outside of strings count: what is inside is
 * looked at by the parser.
 */
export function splitDocuments(text: string): { readonly documents: string[]; readonly rest: string } {
  const documents: string[] = []
  let start = 0
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    if (inString) {
      if (char === '\\') i++
      else if (char === '"') inString = false
    } else if (char === '"') inString = true
    else if (char === '{' || char === '[') depth++
    else if ((char === '}' || char === ']') && --depth <= 0) {
      depth = 0 // one too many: the parser will say so
      documents.push(text.slice(start, i + 1))
      start = i + 1
    }
  }
  return { documents, rest: text.slice(start) }
}

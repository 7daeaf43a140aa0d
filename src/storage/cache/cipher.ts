// Encryption of a cache file: each page of 4096 bytes for itself, AES-128-XTS with an initialisation vector of zeros, so that any part of a chunk can be
// read alone. SPEC: nydus storage/src/cache/cachedfile.rs, utils/src/crypt.rs. Node's OpenSSL does it; nothing here is secret but the key.

import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import { roundDown, roundUp } from '../../core/units.ts'

export interface CacheEncryption {
  /** 32 bytes in hexadecimal, whose halves differ. */
  readonly key: string
  /** Equal chunks give equal bytes for everybody. */
  readonly convergent: boolean
}

const PAGE = 4096
const KEY_BYTES = 32
const NO_VECTOR = new Uint8Array(16)
/**
 * COMPAT: upstream means to take the digest of a chunk as its key, but for RAFS v6 it has none at hand, and takes this one for all
 * (utils/src/crypt.rs DEFAULT_CE_KEY): a convergent cache is one that anybody can read.
 */
const CONVERGENT_KEY = Buffer.from('aced146994231eca448ced2f6b400c00fdbb3facddc7d9ee83f65cd93caa287c', 'hex')

/** Whether `key` can be one. */
export function isCacheKey(key: string): boolean {
  if (!/^[0-9a-f]{64}$/i.test(key)) return false
  const bytes = Buffer.from(key, 'hex')
  return !bytes.subarray(0, KEY_BYTES / 2).equals(bytes.subarray(KEY_BYTES / 2))
}

/** Encrypts and decrypts pages of a cache file. */
export class CacheCipher {
  readonly #key: Uint8Array
  /** Tells keys apart, and does not tell what they are; never 0. */
  readonly fingerprint: number

  constructor({ key, convergent }: CacheEncryption) {
    this.#key = convergent ? CONVERGENT_KEY : Buffer.from(key, 'hex')
    this.fingerprint = createHash('sha256').update('nydus cache key').update(this.#key).digest().readUInt32LE() || 1
  }

  /** `bytes`, filled up with zeros to whole pages, encrypted. */
  encrypt(bytes: Uint8Array): Uint8Array {
    const pages = Buffer.alloc(roundUp(bytes.length, PAGE))
    pages.set(bytes)
    return this.#inPages(pages, (page) => createCipheriv('aes-128-xts', this.#key, NO_VECTOR).update(page))
  }

  /** Decrypts whole pages in place. */
  decrypt(pages: Uint8Array): Uint8Array {
    return this.#inPages(pages, (page) => createDecipheriv('aes-128-xts', this.#key, NO_VECTOR).update(page))
  }

  #inPages(pages: Uint8Array, change: (page: Uint8Array) => Uint8Array): Uint8Array {
    for (let at = 0; at < pages.length; at += PAGE) pages.set(change(pages.subarray(at, at + PAGE)), at)
    return pages
  }
}

/** The whole pages around [offset, offset + length). */
export function pagesAround(offset: number, length: number): { readonly offset: number; readonly length: number } {
  const start = roundDown(offset, PAGE)
  return { offset: start, length: roundUp(offset + length, PAGE) - start }
}

// Configurations have passwords, and the saved state goes through processes that log, dump and store what they please (SPEC: spec-surface.md B.7): so they
// are hidden in it. The key is a file of this machine's that only the daemon's user can read, in a directory that ends with the machine's run; who has the
// state alone has no secret.
//
//   hidden text    <first 8 hex digits of the key's digest>.<base64 of nonce (12) | AES-256-GCM of the text | tag (16)>
//   nonce          from the text and the key: the same text is the same bytes, another text never has the same nonce (as in RFC 8452)

import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, linkSync, mkdirSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { CodedError, isSystemError } from '../../core/errors.ts'

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const KEY_FILE = 'state.key'

/** Hides texts with the key of one of `directories`: the first in which there is one, or can be. */
export class StateSecrets {
  readonly #directories: readonly string[]
  #key: Buffer | undefined

  /** The run directory of a daemon; behind it places for users who may not write there. */
  constructor(runDirectory: string) {
    const own = process.env['XDG_RUNTIME_DIR']
    this.#directories = [runDirectory, ...(own === undefined || own === '' ? [] : [path.join(own, 'nydusd')]), path.join(tmpdir(), `nydusd-${process.geteuid?.() ?? 0}`)]
  }

  /** @throws SERVE_STATE when there is no place for a key */
  hide(text: string): string {
    const key = this.#key ??= this.#obtainKey()
    const nonce = createHmac('sha256', key).update(text).digest().subarray(0, NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', key, nonce)
    return `${nameOf(key)}.${Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64')}`
  }

  /** What `hide` of a daemon of this user on this machine was given. @throws SERVE_BAD_STATE_FILE when it was another's, or is damaged */
  reveal(hidden: string): string {
    const [name, text = ''] = hidden.split('.')
    const bytes = Buffer.from(text, 'base64')
    const key = this.#key !== undefined && nameOf(this.#key) === name ? this.#key : this.#directories.map(keyIn).find((one) => one !== undefined && nameOf(one) === name)
    if (key === undefined) throw new CodedError('SERVE_BAD_STATE_FILE', `the saved daemon state cannot be used: what it hides needs a key that is in none of ${this.#directories.join(', ')}`)
    this.#key = key
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
      decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES))
      return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]).toString('utf8')
    } catch (cause) {
      throw new CodedError('SERVE_BAD_STATE_FILE', 'the saved daemon state cannot be used: what it hides is damaged', {}, { cause })
    }
  }

  #obtainKey(): Buffer {
    let failure: unknown
    for (const directory of this.#directories) {
      try {
        const key = keyIn(directory) ?? makeKey(directory)
        if (key !== undefined) return key
      } catch (error) {
        failure = error
      }
    }
    throw new CodedError('SERVE_STATE', `no place for the key of the saved state: none of ${this.#directories.join(', ')} can be used`, {}, { cause: failure })
  }
}

function nameOf(key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 8)
}

// Undefined without one that is ours alone: others write in /tmp too.
function keyIn(directory: string): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(path.join(directory, KEY_FILE), constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP')) return undefined
    throw error
  }
  try {
    const { uid, mode, size } = fstatSync(fd)
    if (uid !== (process.geteuid?.() ?? 0) || (mode & 0o077) !== 0 || size !== KEY_BYTES) return undefined
    const key = Buffer.alloc(KEY_BYTES)
    return readSync(fd, key, 0, KEY_BYTES, 0) === KEY_BYTES ? key : undefined
  } finally {
    closeSync(fd)
  }
}

// Two daemons that make one at once get the same.
function makeKey(directory: string): Buffer | undefined {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const temporary = path.join(directory, `${KEY_FILE}.${process.pid}`)
  try {
    writeFileSync(temporary, randomBytes(KEY_BYTES), { mode: 0o600, flag: 'wx' })
    linkSync(temporary, path.join(directory, KEY_FILE))
  } catch (error) {
    if (!isSystemError(error, 'EEXIST')) throw error
  } finally {
    rmSync(temporary, { force: true })
  }
  return keyIn(directory)
}

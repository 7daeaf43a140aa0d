import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { decodeState, encodeState, type Hiding, type SavedState, STATE_VERSION } from './saved-state.ts'
import { StateSecrets } from './state-secrets.ts'

/** What daemons of each version have written of this state. */
const FIXTURES = path.resolve(import.meta.dirname, '../../../fixtures/daemon-state')

const state: SavedState = {
  id: 'd1', mountpoint: '/mnt/a b', lastSerial: 7, lastDirectory: 12,
  connection: { xattrs: true, writable: false, minor: 38, flags: 0x4152_0001, flags2: 0, maxReadahead: 1048576, zeroMessageOpens: true },
  mounts: [{ serial: 3, mountpoint: '/a/ü', directories: [2, 12], type: 'Rafs', source: '/images/ü.boot', config: '{"device":{"auth":"me:hunter2"}}', changes: { registryAuth: 'me:other' }, mountedAt: '2026-01-01T00:00:00Z' }],
}
/** What earlier versions wrote had less in it. */
const plain: SavedState = { ...state, mounts: state.mounts.map(({ changes: _, ...row }) => ({ ...row, config: '{"device":{}}' })) }

/** Version 1 knew one mount, on `/`. */
const single: SavedState = { ...plain, lastDirectory: 1, mounts: [{ ...plain.mounts[0]!, mountpoint: '/', directories: [] }] }

/** A directory with a key that is known. */
function keyDirectory(byte: number): Disposable & { readonly path: string } {
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-secrets-'))
  writeFileSync(path.join(directory, 'state.key'), Buffer.alloc(32, byte), { mode: 0o600 })
  return { path: directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true }) }
}

const directory = keyDirectory(7)
const secrets = new StateSecrets(directory.path)
afterAll(() => directory[Symbol.dispose]())

function failure(bytes: Uint8Array, key: Hiding = secrets): unknown {
  try {
    return decodeState(bytes, key)
  } catch (error) {
    return error
  }
}

describe('saved daemon state', () => {
  it('comes back as it was written', () => {
    expect(decodeState(encodeState(state, secrets), secrets)).toEqual(state)
  })

  it.each(readdirSync(FIXTURES).filter((name) => name.endsWith('.json')))('of an earlier version (%s) is read', (name) => {
    expect(decodeState(readFileSync(path.join(FIXTURES, name)), secrets)).toEqual({ 'v1.json': single, 'v2.json': plain }[name] ?? state)
  })

  it('has a fixture of the version that is written now', () => {
    expect(readFileSync(path.join(FIXTURES, `v${STATE_VERSION}.json`))).toEqual(encodeState(state, secrets))
  })

  it('is refused at every truncation', () => {
    const bytes = encodeState(state, secrets)
    for (let length = 0; length < bytes.length - 1; length++) expect(hasCode(failure(bytes.subarray(0, length)), 'SERVE_BAD_STATE_FILE'), `${length} bytes`).toBe(true)
  })

  it('is refused when one character of its body differs, which the digest notices', () => {
    const text = encodeState(state, secrets).toString()
    const at = text.indexOf('lastSerial') + 'lastSerial\\":'.length
    expect(text[at]).toBe('7')
    expect(hasCode(failure(Buffer.from(`${text.slice(0, at)}4${text.slice(at + 1)}`)), 'SERVE_BAD_STATE_FILE')).toBe(true)
  })

  it('of another version is refused by its number', () => {
    const text = encodeState(state, secrets).toString().replace(`"version":${STATE_VERSION}`, '"version":99')
    expect(failure(Buffer.from(text))).toMatchObject({ code: 'SERVE_BAD_STATE_FILE', message: expect.stringContaining('version 99') })
  })

  it('with a good digest but a missing field is refused', () => {
    const { lastSerial: _, ...rest } = state
    // SAFETY: the test builds what the type forbids.
    expect(hasCode(failure(encodeState(rest as SavedState, secrets)), 'SERVE_BAD_STATE_FILE')).toBe(true)
  })

  it('hides its configurations, and is refused to whom they were not hidden for', () => {
    const bytes = encodeState(state, secrets)
    for (const secret of ['hunter2', 'other', 'me:']) expect(bytes.includes(secret)).toBe(false)
    expect(JSON.stringify(decodeState(bytes, secrets))).toContain('hunter2')
    using other = keyDirectory(8)
    const refusal = failure(bytes, new StateSecrets(other.path))
    expect(refusal).toMatchObject({ code: 'SERVE_BAD_STATE_FILE', message: expect.stringContaining('needs a key') })
  })
})

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { hasCode } from '../../core/errors.ts'
import { decodeState, encodeState, readStateFile, type SavedState, STATE_VERSION, writeStateFile } from './saved-state.ts'

/** What daemons of each version have written of this state. */
const FIXTURES = path.resolve(import.meta.dirname, '../../../fixtures/daemon-state')

const state: SavedState = {
  id: 'd1', mountpoint: '/mnt/a b', lastSerial: 7, lastDirectory: 12,
  connection: { xattrs: true, writable: false, minor: 38, flags: 0x4152_0001, flags2: 0, maxReadahead: 1048576, zeroMessageOpens: true },
  mounts: [{ serial: 3, mountpoint: '/a/ü', directories: [2, 12], type: 'Rafs', source: '/images/ü.boot', config: '{"device":{}}', mountedAt: '2026-01-01T00:00:00Z' }],
}

/** Version 1 knew one mount, on `/`. */
const single: SavedState = { ...state, lastDirectory: 1, mounts: [{ ...state.mounts[0]!, mountpoint: '/', directories: [] }] }

function failure(bytes: Uint8Array): unknown {
  try {
    return decodeState(bytes)
  } catch (error) {
    return error
  }
}

describe('saved daemon state', () => {
  it('comes back as it was written', () => {
    expect(decodeState(encodeState(state))).toEqual(state)
  })

  it.each(readdirSync(FIXTURES).filter((name) => name.endsWith('.json')))('of an earlier version (%s) is read', (name) => {
    expect(decodeState(readFileSync(path.join(FIXTURES, name)))).toEqual(name === 'v1.json' ? single : state)
  })

  it('has a fixture of the version that is written now', () => {
    expect(readFileSync(path.join(FIXTURES, `v${STATE_VERSION}.json`))).toEqual(encodeState(state))
  })

  it('is refused at every truncation', () => {
    const bytes = encodeState(state)
    for (let length = 0; length < bytes.length - 1; length++) expect(hasCode(failure(bytes.subarray(0, length)), 'SERVE_BAD_STATE_FILE'), `${length} bytes`).toBe(true)
  })

  it('is refused when one character of its body differs, which the digest notices', () => {
    const text = encodeState(state).toString()
    const at = text.indexOf('lastSerial') + 'lastSerial\\":'.length
    expect(text[at]).toBe('7')
    expect(hasCode(failure(Buffer.from(`${text.slice(0, at)}4${text.slice(at + 1)}`)), 'SERVE_BAD_STATE_FILE')).toBe(true)
  })

  it('of another version is refused by its number', () => {
    const text = encodeState(state).toString().replace(`"version":${STATE_VERSION}`, '"version":99')
    expect(failure(Buffer.from(text))).toMatchObject({ code: 'SERVE_BAD_STATE_FILE', message: expect.stringContaining('version 99') })
  })

  it('with a good digest but a missing field is refused', () => {
    const { mounts: _, ...rest } = state
    // SAFETY: the test builds what the type forbids.
    expect(hasCode(failure(encodeState(rest as SavedState)), 'SERVE_BAD_STATE_FILE')).toBe(true)
  })

  it('is written whole, for its owner only, leaving nothing beside it', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'nydus-state-'))
    try {
      const file = path.join(directory, 'state')
      writeStateFile(file, state)
      expect(readStateFile(file)).toEqual(state)
      expect(statSync(file).mode & 0o777).toBe(0o600)
      expect(readdirSync(directory)).toEqual(['state'])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

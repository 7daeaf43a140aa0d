import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { StateSecrets } from './state-secrets.ts'

const root = mkdtempSync(path.join(tmpdir(), 'nydus-secrets-'))
afterAll(() => rmSync(root, { recursive: true }))
let count = 0
const fresh = (): string => path.join(root, String(count++))

describe('what a saved state hides', () => {
  it('is revealed by every daemon of the machine, and shows nothing of the text', () => {
    const directory = fresh()
    const hidden = new StateSecrets(directory).hide('user:hunter2 ü')
    expect(Buffer.from(hidden.split('.')[1]!, 'base64').includes('hunter2')).toBe(false)
    expect(new StateSecrets(directory).reveal(hidden)).toBe('user:hunter2 ü')
    expect(new StateSecrets(directory).hide('user:hunter2 ü')).toBe(hidden)
    expect(new StateSecrets(directory).hide('user:hunter3 ü').slice(9, 25)).not.toBe(hidden.slice(9, 25))
    expect([statSync(directory).mode & 0o777, statSync(path.join(directory, 'state.key')).mode & 0o777]).toEqual([0o700, 0o600])
    expect(readdirSync(directory)).toEqual(['state.key'])
  })

  it('is refused when it is damaged, or the key is gone', () => {
    const directory = fresh()
    const hidden = new StateSecrets(directory).hide('x'.repeat(40))
    for (let at = 0; at < hidden.length; at++) {
      const changed = hidden[at] === 'A' ? 'B' : 'A'
      if (hidden[at] === '=' || at === hidden.length - 1) continue // base64's padding says nothing
      expect(() => new StateSecrets(directory).reveal(hidden.slice(0, at) + changed + hidden.slice(at + 1)), String(at)).toThrow(expect.objectContaining({ code: 'SERVE_BAD_STATE_FILE' }))
    }
    for (const text of ['', '.', 'x', hidden.slice(0, 9), hidden.slice(0, 20)]) expect(() => new StateSecrets(directory).reveal(text), text).toThrow(expect.objectContaining({ code: 'SERVE_BAD_STATE_FILE' }))
    rmSync(directory, { recursive: true })
    expect(() => new StateSecrets(directory).reveal(hidden)).toThrow(expect.objectContaining({ code: 'SERVE_BAD_STATE_FILE' }))
  })

  it('uses no key that others may read or have made, but the next place', () => {
    const elsewhere = fresh()
    process.env['XDG_RUNTIME_DIR'] = elsewhere
    try {
      const key = Buffer.alloc(32, 1)
      const places = [fresh(), fresh(), fresh(), path.join(fresh(), 'file/x')]
      for (const place of places.slice(0, 3)) mkdirSync(place)
      writeFileSync(path.join(places[0]!, 'state.key'), key, { mode: 0o644 })
      writeFileSync(path.join(places[1]!, 'real'), key, { mode: 0o600 })
      symlinkSync('real', path.join(places[1]!, 'state.key'))
      writeFileSync(path.join(places[2]!, 'state.key'), key.subarray(1), { mode: 0o600 })
      mkdirSync(path.dirname(path.dirname(places[3]!)))
      writeFileSync(path.dirname(places[3]!), '')
      for (const place of places) expect(new StateSecrets(place).reveal(new StateSecrets(place).hide('text'))).toBe('text')
      expect(readFileSync(path.join(elsewhere, 'nydusd/state.key')).length).toBe(32)
    } finally {
      delete process.env['XDG_RUNTIME_DIR']
    }
  })
})

// Damages JSON values: any node may be replaced by something that readers do not expect, go, come twice, or change places with another.

import { below } from './hostile.ts'

const STRANGE: readonly unknown[] = [
  null, true, 0, -1, 1.5, 2 ** 31, 2 ** 53, 1e308, '', ' ', '0', 'x', '..', '../../../etc/passwd', 'a/../../b', '/', '\0', '\ud800', 'sha256:', `sha256:${'0'.repeat(64)}`, `sha256:${'0'.repeat(63)}/`, `sha512:${'a'.repeat(128)}`,
  'md5:00', 'x'.repeat(10_000), [], {}, [[]], [null], { __proto__: 1 }, { length: 1 }, { toString: 1 }, 'true', 'application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.v1+json', 'windows', 'unknown', 'http://127.0.0.1:1/x',
]

interface Slot { readonly parent: object; readonly key: string | number; readonly path: string }

function slotsOf(value: unknown, path = ''): Slot[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, child]) => {
    const here = `${path}/${name.slice(0, 20)}`
    return [{ parent: value, key: Array.isArray(value) ? Number(name) : name, path: here }, ...slotsOf(child, here)]
  })
}

const get = ({ parent, key }: Slot): unknown => Reflect.get(parent, key)
const set = ({ parent, key }: Slot, value: unknown): boolean => Reflect.set(parent, key, value)

/** What might as well stand there. */
function plausible(old: unknown, random: () => number): unknown {
  switch (typeof old) {
    case 'boolean': return !old
    case 'number': return below(random, 2) === 0 ? old * 2 : 1 + below(random, 1000)
    case 'string': return below(random, 2) === 0 ? `${old}x` : old.slice(0, below(random, old.length + 1))
    default: return structuredClone(old)
  }
}

/** Mostly of the same type: what else gets past the first look. */
function strange(old: unknown, random: () => number): unknown {
  if (below(random, 3) > 0) return plausible(old, random)
  const alike = below(random, 5) > 0 ? STRANGE.filter((value) => typeof value === typeof old && Array.isArray(value) === Array.isArray(old)) : STRANGE
  return structuredClone(alike.length > 0 ? alike[below(random, alike.length)] : null)
}

/**
 * A damaged copy of `value`, with one or two changes, and what they are. Five changes in six are at paths that match `loose`: what readers may do
 * without, so that most documents come past the look at what they must have.
 */
export function mutateJson<T>(value: T, random: () => number, loose = /^/): { readonly value: T; readonly what: string } {
  const copy = structuredClone(value)
  const changes: string[] = []
  for (let left = 1 + Math.floor(below(random, 5) / 3); left > 0; left--) {
    const all = slotsOf(copy)
    const wanted = below(random, 6) > 0 ? all.filter(({ path }) => loose.test(path)) : all
    const slots = wanted.length > 0 ? wanted : all
    if (slots.length === 0) break
    const slot = slots[below(random, slots.length)]!
    const other = slots[below(random, slots.length)]!
    const kind = below(random, 8)
    if (kind === 0) Reflect.deleteProperty(slot.parent, slot.key)
    else if (kind === 1 && Array.isArray(slot.parent)) slot.parent.push(structuredClone(get(slot)))
    else if (kind === 2) set(slot, structuredClone(get(other)))
    else set(slot, strange(get(slot), random))
    changes.push(`${['without', 'twice', 'other'][kind] ?? 'strange'} ${slot.path} ${kind > 2 ? JSON.stringify(get(slot))?.slice(0, 60) : ''}`)
  }
  return { value: copy, what: changes.join('; ') }
}

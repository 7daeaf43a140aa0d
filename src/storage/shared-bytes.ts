// Bytes that several users hold at once are held once: a hundred mounts of images with one base layer have its chunk information, 16 to 24 bytes a chunk,
// in memory once. They are shared only after they were compared, so nobody trusts another's source.

interface Held { readonly buffer: WeakRef<ArrayBufferLike>; readonly offset: number; readonly length: number }

const held = new Map<string, Held>()
const gone = new FinalizationRegistry<string>((key) => {
  if (held.get(key)?.buffer.deref() === undefined) held.delete(key)
})

/** Bytes equal to `bytes`: those that somebody holds already under `key`, or `bytes` themselves, kept for the next one. Nobody may change them. */
export function sharedBytes(key: string, bytes: Uint8Array): Uint8Array {
  const known = held.get(key)
  const buffer = known?.buffer.deref()
  if (known !== undefined && buffer !== undefined && known.length === bytes.length) {
    const same = new Uint8Array(buffer, known.offset, known.length)
    if (Buffer.compare(same, bytes) === 0) return same
  }
  held.set(key, { buffer: new WeakRef(bytes.buffer), offset: bytes.byteOffset, length: bytes.length })
  gone.register(bytes.buffer, key)
  return bytes
}

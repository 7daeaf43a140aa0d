// Names in a layer that say what is gone from the layers below.
// SPEC: opencontainers/image-spec layer.md "Whiteouts"; the other `.wh..wh.` names are AUFS' own bookkeeping, from which the form came.

export const WHITEOUT_PREFIX = '.wh.'
export const OPAQUE_WHITEOUT = '.wh..wh..opq'
const AUFS_PREFIX = '.wh..wh.'

/** What the last component of a path (a byte string) means. */
export type LayerName =
  | { readonly kind: 'entry' }
  /** The directory hides all of its content in lower layers. */
  | { readonly kind: 'opaque' }
  /** The sibling `target` of lower layers is gone. */
  | { readonly kind: 'whiteout'; readonly target: string }
  /** Not part of any file system: to be left out. */
  | { readonly kind: 'bookkeeping' }
  /** `.wh.`, `.wh..` and `.wh...` would remove nothing, the directory itself or its parent: to be refused. */
  | { readonly kind: 'invalid' }

const ENTRY: LayerName = { kind: 'entry' }

/** What the name of a layer's entry says. SPEC: OCI image-spec layer.md "Whiteouts". */
export function layerName(name: string): LayerName {
  if (!name.startsWith(WHITEOUT_PREFIX)) return ENTRY
  if (name === OPAQUE_WHITEOUT) return { kind: 'opaque' }
  if (name.startsWith(AUFS_PREFIX)) return { kind: 'bookkeeping' }
  const target = name.slice(WHITEOUT_PREFIX.length)
  return target === '' || target === '.' || target === '..' ? { kind: 'invalid' } : { kind: 'whiteout', target }
}

// How images are called inside one OCI layout. The annotation org.opencontainers.image.ref.name is either a bare tag (what
// `skopeo copy … oci:DIR:TAG` writes) or REPOSITORY:TAG, so that one layout holds many repositories and `nydusify serve` can show them.
// SPEC: opencontainers/image-spec image-layout.md, annotations.md "org.opencontainers.image.ref.name".

import type { Descriptor } from '../../format/oci/descriptor.ts'

export const REF_NAME = 'org.opencontainers.image.ref.name'
/** containerd and docker save put the full reference here and only the tag in REF_NAME. */
export const CONTAINERD_NAME = 'io.containerd.image.name'

/** The names of an entry of index.json, best first. */
export function namesOf(entry: Descriptor): string[] {
  return [entry.annotations?.[REF_NAME], entry.annotations?.[CONTAINERD_NAME]].filter((name) => name !== undefined)
}

/** `repo/sub:tag` → both halves; a bare tag has no repository. */
export function splitName(name: string): { readonly repository: string | undefined; readonly tag: string } {
  const colon = name.lastIndexOf(':')
  return colon < 0 ? { repository: undefined, tag: name } : { repository: name.slice(0, colon), tag: name.slice(colon + 1) }
}

/** `entry` called `name` and nothing else. */
export function named(entry: Descriptor, name: string): Descriptor {
  const { [CONTAINERD_NAME]: _containerd, ...annotations } = entry.annotations ?? {}
  return { ...entry, annotations: { ...annotations, [REF_NAME]: name } }
}

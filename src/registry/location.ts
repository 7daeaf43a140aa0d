// Where an image is, as users write it, and the source or target that belongs to it.

import os from 'node:os'
import path from 'node:path'
import { CodedError, foreignText } from '../core/errors.ts'
import { isDigest } from '../format/oci/digest.ts'
import { formatReference, parseReference, withDefaultTag, type Reference } from '../format/oci/reference.ts'
import { ArchiveLayout } from './archive/archive-layout.ts'
import { ArchiveTarget } from './archive/archive-target.ts'
import { openDockerArchive } from './archive/docker-archive.ts'
import { RegistrySource, RegistryTarget } from './client/registry-place.ts'
import type { RegistryOptions } from './client/registry-client.ts'
import { LayoutSource } from './layout/layout-source.ts'
import { LayoutStore } from './layout/layout-store.ts'
import { LayoutTarget } from './layout/layout-target.ts'
import type { ImageSource, ImageTarget, Signal } from './types.ts'

/** `image`: a name in index.json (bare tag, REPOSITORY:TAG), or a digest. */
export type Location =
  | { readonly kind: 'registry'; readonly reference: Reference }
  | { readonly kind: 'oci' | 'oci-archive' | 'docker-archive'; readonly path: string; readonly image: string | undefined }

export interface OpenOptions extends RegistryOptions, Signal {
  /** Bytes a PATCH when pushing; 0: every blob in one PUT. Default 64 MiB. */
  readonly pieceSize?: number | undefined
  /** Where streams wait until a registry has them; default the system's temporary directory. */
  readonly workDirectory?: string | undefined
}

const TRANSPORT = /^(docker|oci|oci-archive|docker-archive):/

/**
 * `docker://REFERENCE` or a bare reference, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`; after each of the last
 * three also `@DIGEST`. A path ends at its first colon, as skopeo reads it. REGISTRY_BAD_REFERENCE.
 */
export function parseLocation(text: string): Location {
  const transport = TRANSPORT.exec(text)?.[1]
  const rest = transport === undefined ? text : text.slice(transport.length + 1)
  if (transport === 'docker') {
    if (!rest.startsWith('//')) throw new CodedError('REGISTRY_BAD_REFERENCE', `"${foreignText(text)}": write docker://REFERENCE`)
    return { kind: 'registry', reference: parseReference(rest.slice(2)) }
  }
  if (transport !== 'oci' && transport !== 'oci-archive' && transport !== 'docker-archive') return { kind: 'registry', reference: parseReference(text) }
  const at = rest.lastIndexOf('@')
  const digest = at >= 0 && isDigest(rest.slice(at + 1)) ? rest.slice(at + 1) : undefined
  const located = digest === undefined ? rest : rest.slice(0, at)
  const colon = located.indexOf(':')
  const name = colon < 0 ? undefined : located.slice(colon + 1)
  const file = colon < 0 ? located : located.slice(0, colon)
  if (file === '' || name === '') throw new CodedError('REGISTRY_BAD_REFERENCE', `"${foreignText(text)}": write ${transport}:PATH or ${transport}:PATH:NAME`)
  return { kind: transport, path: file, image: digest ?? name }
}

/** Text for messages and annotations; `parseLocation` of it is the same place. */
export function formatLocation(location: Location): string {
  if (location.kind === 'registry') return formatReference(withDefaultTag(location.reference))
  const image = location.image === undefined ? '' : isDigest(location.image) ? `@${location.image}` : `:${location.image}`
  return `${location.kind}:${location.path}${image}`
}

/** The place to read from. REGISTRY_BAD_REFERENCE, REGISTRY_NOT_FOUND (files; a registry is asked by `resolve`), REGISTRY_STORE. Dispose it. */
export async function openSource(where: string | Location, options: OpenOptions): Promise<ImageSource> {
  options.signal.throwIfAborted()
  const location = typeof where === 'string' ? parseLocation(where) : where
  const name = formatLocation(location)
  switch (location.kind) {
    case 'registry': return new RegistrySource(location.reference, options)
    case 'oci': return new LayoutSource(name, await LayoutStore.open(location.path, { create: false }), location.image)
    case 'oci-archive': return new LayoutSource(name, await ArchiveLayout.open(location.path, options), location.image)
    case 'docker-archive': return new LayoutSource(name, await openDockerArchive(location.path, options), dockerName(location.image))
  }
}

/** The place to write to; layouts are created. Nothing is visible before the final manifest, archives not before `finish`. Dispose it. */
export async function openTarget(where: string | Location, options: OpenOptions): Promise<ImageTarget> {
  options.signal.throwIfAborted()
  const location = typeof where === 'string' ? parseLocation(where) : where
  const name = formatLocation(location)
  if (location.kind === 'registry') {
    return new RegistryTarget(location.reference, { ...options, spoolDirectory: options.workDirectory ?? os.tmpdir() })
  }
  if (location.image !== undefined && isDigest(location.image)) throw new CodedError('REGISTRY_BAD_REFERENCE', `target ${name} has a digest: what is written decides its digest`)
  switch (location.kind) {
    case 'oci': return new LayoutTarget(name, await LayoutStore.open(location.path, { create: true }), location.image ?? 'latest')
    case 'oci-archive': return ArchiveTarget.open(location.path, { imageName: location.image ?? 'latest', docker: false })
    case 'docker-archive': return ArchiveTarget.open(location.path, { imageName: dockerName(location.image ?? fileStem(location.path))!, docker: true })
  }
}

/** Archives of docker and podman name images by full references with a tag; people leave out what docker does. Digests stay. REGISTRY_BAD_REFERENCE. */
function dockerName(image: string | undefined): string | undefined {
  return image === undefined || isDigest(image) ? image : formatReference(withDefaultTag(parseReference(image)))
}

/** `My App.tar` → `my-app`: a name for an image that was given none. */
function fileStem(file: string): string {
  const stem = path.basename(file).replace(/\.tar$/, '').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '')
  return stem === '' ? 'image' : stem
}

// Moves content that is already in its final form from a source to a target.

import type { Descriptor } from '../format/oci/descriptor.ts'
import type { ImageSource, ImageTarget, PushOptions } from './types.ts'

/** What it took: nothing, a cross-repository mount, or sending the bytes. */
export type Transfer = 'present' | 'mounted' | 'sent'

/** Brings one blob to `target`, by the cheapest way there is. The bytes are verified on the way. REGISTRY_* codes of both sides. */
export async function copyBlob(source: ImageSource, target: ImageTarget, { descriptor, signal, onProgress }: PushOptions & { readonly descriptor: Descriptor }): Promise<Transfer> {
  if (await target.hasBlob(descriptor, { signal })) return 'present'
  if (source.repository !== undefined && await target.mountBlob(descriptor, source.repository, { signal })) return 'mounted'
  await target.pushBlob(descriptor, (range) => source.openBlob(descriptor, range), { signal, onProgress })
  return 'sent'
}

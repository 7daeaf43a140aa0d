// An OCI layout inside a tar archive (`oci-archive:`, upstream's --source-archive, and what docker save writes since version 25).

import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { parseIndex, type Descriptor } from '../../format/oci/descriptor.ts'
import { asDigest, splitDigest, type Digest } from '../../format/oci/digest.ts'
import { collect } from '../content.ts'
import { checkLayoutFile, type ReadableLayout } from '../layout/layout-store.ts'
import { TarFile } from './tar-file.ts'

/** LIMIT: as an index.json on disk. */
const MAX_INDEX_SIZE = 8 * MiB

/** Owns `tar`. */
export class ArchiveLayout implements ReadableLayout {
  readonly path: string
  readonly #tar: TarFile

  private constructor(tar: TarFile) {
    this.path = tar.path
    this.#tar = tar
  }

  /** REGISTRY_NOT_FOUND, REGISTRY_STORE when the archive is not one of a layout. */
  static async open(file: string, options: { signal: AbortSignal }): Promise<ArchiveLayout> {
    const tar = await TarFile.open(file, options)
    if (!isLayoutArchive(tar)) {
      await tar[Symbol.asyncDispose]()
      throw new CodedError('REGISTRY_STORE', `${file} holds no OCI layout (no oci-layout and index.json)`, { file })
    }
    return ArchiveLayout.of(tar)
  }

  /** An archive that `isLayoutArchive`. */
  static async of(tar: TarFile): Promise<ArchiveLayout> {
    checkLayoutFile(await memberText(tar, 'oci-layout'), tar.path)
    return new ArchiveLayout(tar)
  }

  async entries(): Promise<readonly Descriptor[]> {
    return parseIndex(await memberText(this.#tar, 'index.json')).manifests
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return this.#tar.member(memberOf(digest))?.size
  }

  read(digest: Digest, range: { readonly offset: number; readonly length: number }): AsyncIterable<Uint8Array> {
    return this.#tar.read(memberOf(digest), range)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tar[Symbol.asyncDispose]()
  }
}

/** Whether a tar holds an OCI layout (as opposed to what `docker save` writes). */
export function isLayoutArchive(tar: TarFile): boolean {
  return tar.member('oci-layout') !== undefined && tar.member('index.json') !== undefined
}

/** A small member as text. REGISTRY_NOT_FOUND, REGISTRY_PROTOCOL when it is larger than any index. */
export async function memberText(tar: TarFile, name: string): Promise<string> {
  const bytes = await collect(tar.read(name, { offset: 0, length: MAX_INDEX_SIZE + 1 }), MAX_INDEX_SIZE)
  return Buffer.from(bytes).toString('utf8')
}

function memberOf(digest: Digest): string {
  const { algorithm, hex } = splitDigest(asDigest(digest))
  return `blobs/${algorithm}/${hex}`
}

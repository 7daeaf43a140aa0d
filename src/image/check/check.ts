// Checks a Nydus image: manifest, bootstrap, and every file against the layers that it was made of.

import { toText } from '../../core/byte-string.ts'
import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { validateTree } from '../../format/rafs-v6/validate-tree.ts'
import type { Platform } from '../../format/oci/platform.ts'
import type { ImageSource } from '../../registry/index.ts'
import { readBootstrap } from '../bootstrap-layer.ts'
import { findImages, type FoundImage, type FoundNydusImage } from '../find-image.ts'
import { openLayer } from '../open-layer.ts'
import { compareTrees } from './compare.ts'
import { ExpectedTree } from './expected-tree.ts'
import type { FileTree } from './file-tree.ts'
import { brokenManifestRules, configDifferences, missingBlobs, sourceRules } from './rules.ts'

/** Where a difference is: in the manifest and config, in the bootstrap, or in the files. */
export type CheckPart = 'manifest' | 'bootstrap' | 'files'

export interface CheckFinding { readonly part: CheckPart; readonly message: string }

/** A file system of the image, until disposed. */
export interface OpenTree extends AsyncDisposable { readonly tree: FileTree }

export interface CheckOptions {
  readonly target: ImageSource
  /** Without one the target alone is checked. */
  readonly source?: ImageSource | undefined
  readonly platform: Platform
  /** The target must be an index with both an OCI and a Nydus image. */
  readonly bothKinds: boolean
  /** Makes the target's files readable: mounts it, or opens it with our reader. */
  readonly openTree: (image: FoundNydusImage, bootstrap: Uint8Array, options: { readonly signal: AbortSignal }) => Promise<OpenTree>
  /** Sees manifests, configs and bootstrap before they are judged: upstream leaves them in the work directory. */
  readonly onDocuments?: ((documents: CheckDocuments) => Promise<void>) | undefined
  readonly onFinding?: ((finding: CheckFinding) => void) | undefined
  readonly signal: AbortSignal
}

export interface CheckDocuments { readonly target: FoundNydusImage; readonly bootstrap: Uint8Array; readonly source: FoundImage | undefined }

export interface CheckReport {
  readonly findings: readonly CheckFinding[]
  /** How the files were reached; undefined without a source to compare with. */
  readonly how: string | undefined
  readonly inodes: number
  readonly files: number
  readonly bytes: number
}

/** LIMIT: a broken image differs everywhere; more lines help nobody. */
const MAX_FINDINGS = 10_000

/** Checks and reports; what is wrong with the image is a finding, what prevents the check an error: REGISTRY_*, FORMAT_*, SERVE_MOUNT. */
export async function checkImage(options: CheckOptions): Promise<CheckReport> {
  const { target, source, platform, signal } = options
  const findings: CheckFinding[] = []
  const find = (part: CheckPart, message: string) => {
    const finding = { part, message }
    if (findings.push(finding) > MAX_FINDINGS) throw new CodedError('IMAGE_DIFFERS', `more than ${MAX_FINDINGS} differences`, { differences: MAX_FINDINGS })
    options.onFinding?.(finding)
  }
  const found = await findImages(target, { platform, signal })
  if (found.nydus === undefined) {
    find('manifest', `${target.name} is not a Nydus image`)
    return { findings, how: undefined, inodes: 0, files: 0, bytes: 0 }
  }
  if (options.bothKinds && (!found.isIndex || found.oci === undefined)) find('manifest', `${target.name} has no OCI image beside the Nydus one`)
  const original = source === undefined ? undefined : await originalOf(source, { platform, signal })
  for (const message of brokenManifestRules(found.nydus)) find('manifest', message)
  if (original !== undefined) {
    for (const message of configDifferences(found.nydus.config, original.config)) find('manifest', message)
    for (const message of sourceRules(found.nydus, original)) find('manifest', message)
  }
  step('manifest', found.nydus.descriptor.digest)

  const bootstrap = await readBootstrap(target, found.nydus.bootstrap, { diffId: found.nydus.diffId, signal })
  await options.onDocuments?.({ target: found.nydus, bootstrap, source: original })
  const inodes = checkBootstrap(found.nydus, bootstrap, find)
  if (original === undefined || source === undefined) return { findings, how: undefined, inodes, files: 0, bytes: 0 }

  const expected = new ExpectedTree()
  for (const [at, layer] of original.manifest.layers.entries()) await expected.apply(openLayer(source, { layer, diffId: original.config.rootfs.diff_ids[at], signal }))
  step('layers', `${original.manifest.layers.length} of the source applied`)
  await using open = await options.openTree(found.nydus, bootstrap, { signal })
  const { files, bytes } = await compareTrees(expected.root, open.tree, { signal, onDifference: ({ path, what }) => find('files', `${path} ${what}`) })
  step('files', `${files} compared, ${bytes} bytes, ${open.tree.how}`)
  return { findings, how: open.tree.how, inodes, files, bytes }
}

async function originalOf(source: ImageSource, options: { platform: Platform; signal: AbortSignal }): Promise<FoundImage> {
  const { oci } = await findImages(source, options)
  if (oci === undefined) throw new CodedError('IMAGE_INVALID', `${source.name} is a Nydus image: nothing to compare the files with`)
  return oci
}

/** Walks the bootstrap; the number of inodes. */
function checkBootstrap(image: FoundNydusImage, bootstrap: Uint8Array, find: (part: CheckPart, message: string) => void): number {
  let inodes = 0
  let view: BootstrapView
  try {
    view = BootstrapView.open(bootstrap)
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
    find('bootstrap', error.message)
    return 0
  }
  for (const message of missingBlobs(view, image)) find('bootstrap', message)
  for (const { node, problem } of validateTree(view)) {
    if (node !== undefined && !node.isAlias) inodes++
    if (problem?.severity === 'error') find('bootstrap', `${toText(problem.path)}: ${problem.message}`)
    else if (problem !== undefined) publish('image:warning:raised', { message: `${toText(problem.path)}: ${problem.message}` })
  }
  step('bootstrap', `${inodes} inodes, ${view.blobs.length} blobs`)
  return inodes
}

function step(name: string, detail: string): void {
  publish('image:step:done', { step: name, detail, durationMs: 0 })
}

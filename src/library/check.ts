// check(): is an image sound, and is it its source.

import { accessSync, constants } from 'node:fs'
import { mkdir, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type CheckDocuments, type CheckFinding, checkImage, type CheckReport, mountImage, MountedTree, type OpenTree, ReadTree, SourceBackend } from '../image/index.ts'
import { RafsImage } from '../rafs/index.ts'
import { openSource, parseLocation, type RegistryOptions } from '../registry/index.ts'
import { nydusdCommand, platformOf, signalOf } from './places.ts'
import { type ProgressListener, withProgress } from './progress.ts'

export type { CheckFinding, CheckReport } from '../image/index.ts'

export interface CheckRequest {
  /** The Nydus image: `docker://REFERENCE` or a bare reference, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`. */
  readonly target: string
  /** What it was made of; without it only the target is checked. */
  readonly source?: string | undefined
  readonly targetRegistry?: RegistryOptions | undefined
  readonly sourceRegistry?: RegistryOptions | undefined
  readonly platform?: string | undefined
  /** The target must be an index with an OCI and a Nydus image. */
  readonly bothKinds?: boolean | undefined
  /** `mount`: through nydusd and FUSE; `read`: our reader; default: mount where that is possible. */
  readonly through?: 'mount' | 'read' | undefined
  /** Gets manifests, configs and bootstraps, in `source/` and `target/`, which are replaced. Default: nothing is left behind. */
  readonly documentsDirectory?: string | undefined
  /** For caches and the mountpoint. Default `./output`. */
  readonly workDirectory?: string | undefined
  readonly nydusd?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onFinding?: ((finding: CheckFinding) => void) | undefined
  readonly onProgress?: ProgressListener | undefined
}

/** Checks; differences are in the report, not thrown. REGISTRY_*, IMAGE_UNSUPPORTED, FORMAT_*, SERVE_MOUNT for what prevents the check. */
export async function check(request: CheckRequest): Promise<CheckReport> {
  return withProgress(request.onProgress, () => run(request, signalOf(request.signal)))
}

async function run(request: CheckRequest, signal: AbortSignal): Promise<CheckReport> {
  const location = parseLocation(request.target)
  const registry = request.targetRegistry ?? {}
  const workDirectory = path.resolve(request.workDirectory ?? 'output')
  const made = await mkdir(workDirectory, { recursive: true })
  const scratch = await mkdtemp(path.join(workDirectory, 'check-'))
  try {
    await using target = await openSource(location, { ...registry, workDirectory: scratch, signal })
    await using source = request.source === undefined ? undefined : await openSource(request.source, { ...request.sourceRegistry, workDirectory: scratch, signal })
    const isMounted = request.through === undefined ? canMount() : request.through === 'mount'
    const { documentsDirectory } = request
    return await checkImage({
      target, source, platform: platformOf(request.platform), bothKinds: request.bothKinds ?? false, onFinding: request.onFinding, signal,
      onDocuments: documentsDirectory === undefined ? undefined : (documents) => keepDocuments(documentsDirectory, documents),
      openTree: async (image, bootstrap, { signal: abort }): Promise<OpenTree> => {
        if (isMounted) {
          const mountpoint = path.join(scratch, 'mnt')
          const daemon = await mountImage({ source: target, location, registry, image, bootstrap, mountpoint, workDirectory: scratch, prefetch: false, nydusd: nydusdCommand(request.nydusd), signal: abort })
          return { tree: new MountedTree(mountpoint), [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose]() }
        }
        const backend = new SourceBackend(await openSource(location, { ...registry, workDirectory: scratch, signal: abort }), image.manifest)
        const opened = await RafsImage.open({ bootstrap, backend, cacheDirectory: path.join(scratch, 'cache'), signal: abort })
        return { tree: new ReadTree(opened), [Symbol.asyncDispose]: () => opened.close() }
      },
    })
  } finally {
    await rm(scratch, { recursive: true, force: true })
    if (made !== undefined) await rmdir(workDirectory).catch(() => {}) // what was kept in it stays
  }
}

/** Whether a FUSE mount can be tried at all. */
function canMount(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
  } catch {
    return false // no such device here
  }
  return process.geteuid?.() === 0
}

/** COMPAT: where upstream's check leaves what it looked at. */
async function keepDocuments(directory: string, { target, bootstrap, source }: CheckDocuments): Promise<void> {
  for (const [name, image] of [['target', target], ['source', source]] as const) {
    const folder = path.join(directory, name)
    await rm(folder, { recursive: true, force: true })
    if (image === undefined) continue
    await mkdir(folder, { recursive: true })
    await writeFile(path.join(folder, name === 'target' ? 'nydus_manifest.json' : 'oci_manifest.json'), image.bytes)
    await writeFile(path.join(folder, name === 'target' ? 'nydus_config.json' : 'oci_config.json'), image.configBytes)
  }
  await mkdir(path.join(directory, 'target', 'nydus_bootstrap', 'image'), { recursive: true })
  await writeFile(path.join(directory, 'target', 'nydus_bootstrap', 'image', 'image.boot'), bootstrap)
}

// A writable mount: an image, the directories above it, and what a server needs that continues the one before it.

import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { S_IFDIR } from '../../format/erofs/inode.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import type { RafsImage } from '../../rafs/index.ts'
import type { FileSystem } from '../daemon/file-system.ts'
import { delegatedView } from '../fuse/delegated-file-system.ts'
import { ROOT_NODE } from '../fuse/live-file-system.ts'
import { delegateOf } from '../fuse/live-requests.ts'
import { Journal } from '../journal.ts'
import { type LowerLayer, O_PATH, RENAME, UpperLayer } from './layers.ts'
import { NodeTable } from './node-table.ts'
import { OverlayNode } from './node.ts'
import { OverlayFileSystem } from './overlay-file-system.ts'
import { OverlayTree } from './tree.ts'

/** Directories of the host, on one file system. */
export interface OverlayDirectories { readonly upperDir: string; readonly workDir: string }

/** Our part of the work directory; `work` and `index` beside it are the kernel's. */
const OWN = 'nydus'

/** The writable file system over `image`, which it closes. With `resume` it continues what a server before it has served. @throws CONFIG_INVALID when the directories cannot be used */
export function overlayFileSystem(image: RafsImage, directories: OverlayDirectories, { resume }: { readonly resume: boolean }): FileSystem {
  const paths = prepare(directories)
  let opened: { readonly upper: UpperLayer; readonly table: NodeTable; readonly journal: Journal; readonly live: OverlayFileSystem } | undefined
  const closing = new AbortController()
  let abandoned = false
  return {
    type: 'Rafs',
    view: delegatedView,
    hasXattr: true,
    image,
    share: () => ({ kind: 'delegated' }),
    readInto: () => Promise.reject(new CodedError('SERVE_STATE', 'reads of an overlay are not missed')),
    // not before the first request: until then another server may still be at work
    delegate(place) {
      opened = open(image, paths, { resume, signal: closing.signal, abandoned: () => { abandoned = true } })
      return delegateOf({ live: opened.live, journal: opened.journal, ...place })
    },
    async close() {
      closing.abort(new CodedError('SERVE_STALE_NODE', 'unmounted while it was being read'))
      if (opened) {
        if (!abandoned) {
          opened.upper.clearWork()
          for (const file of [paths.journal, paths.nodes]) rmSync(file, { force: true })
        }
        opened.upper.closeAll()
        opened.table.close()
        opened.journal.close()
      }
      await image.close()
    },
  }
}

interface Paths { readonly upper: string; readonly work: string; readonly journal: string; readonly nodes: string }

function prepare({ upperDir, workDir }: OverlayDirectories): Paths {
  const own = path.join(workDir, OWN)
  const paths = { upper: upperDir, work: path.join(own, 'new'), journal: path.join(own, 'journal'), nodes: path.join(own, 'nodes') }
  if (path.relative(upperDir, workDir) === '' || !path.relative(upperDir, workDir).startsWith('..') || !path.relative(workDir, upperDir).startsWith('..')) {
    throw new CodedError('CONFIG_INVALID', 'overlay.upper_dir and overlay.work_dir must not lie in each other', { upperDir, workDir })
  }
  try {
    for (const directory of [upperDir, workDir]) if (!statSync(directory).isDirectory()) throw new Error(`${directory} is not a directory`)
    mkdirSync(paths.work, { recursive: true, mode: 0o700 })
    if (statSync(upperDir).dev !== statSync(paths.work).dev) throw new Error('they are on different file systems')
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `the directories of the overlay cannot be used: ${cause instanceof Error ? cause.message : ''}`, { upperDir, workDir }, { cause })
  }
  probe(paths)
  return paths
}

/** Whether the file system can do what an upper directory needs. */
function probe(paths: Paths): void {
  const upper = new UpperLayer(paths.upper, paths.work)
  const [name, moved] = [upper.temporary(), upper.temporary()]
  try {
    checked(native().makeDirectory(upper.work, name, 0o700), 'mkdir')
    const fd = checked(native().openChild(upper.work, name, O_PATH, 0), 'open')
    try {
      upper.setOpaque(fd)
    } finally {
      native().closeFd(fd)
    }
    checked(native().renameAt(upper.work, name, upper.work, moved, RENAME.WHITEOUT), 'rename that leaves a whiteout')
  } catch (cause) {
    throw new CodedError('CONFIG_INVALID', `the file system of overlay.upper_dir cannot hold an overlay (as the kernel's overlayfs it needs trusted.* attributes and whiteouts, so root): ${cause instanceof Error ? cause.message : ''}`, {}, { cause })
  } finally {
    for (const one of [name, moved]) upper.removeTree(upper.work, one)
    upper.closeAll()
  }
}

function open(image: RafsImage, paths: Paths, { resume, signal, abandoned }: { readonly resume: boolean; readonly signal: AbortSignal; readonly abandoned: () => void }) {
  const { view } = image
  const continues = resume && existsSync(paths.journal) && existsSync(paths.nodes)
  const upper = new UpperLayer(paths.upper, paths.work)
  upper.clearWork({ kept: continues })
  const lower: LowerLayer = {
    view,
    owner: view.explicitIds ? undefined : { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
    async read(inode, offset, target) {
      const deadline = image.readDeadlineMs > 0 ? AbortSignal.any([signal, AbortSignal.timeout(image.readDeadlineMs)]) : signal
      return await image.readInto(inode, offset, target, { signal: deadline })
    },
  }
  const isOpaque = upper.attribute(upper.root, 'trusted.overlay.opaque') === 'y'
  const root = new OverlayNode(ROOT_NODE, { type: S_IFDIR, lower: isOpaque ? undefined : view.rootNid, hasUpper: true, inoLow: view.rootNid, inoHigh: 0 })
  const table = new NodeTable(paths.nodes, root, { resume: continues })
  const journal = new Journal(paths.journal, { resume: continues })
  const live = new OverlayFileSystem(new OverlayTree(lower, upper, table))
  const abandon = live.abandon.bind(live)
  live.abandon = () => {
    abandoned()
    abandon()
  }
  return { upper, table, journal, live }
}

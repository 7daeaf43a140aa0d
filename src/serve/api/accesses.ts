// What the API tells of a mount's files: upstream's per-file metrics, and our trace.
// SPEC: spec-surface.md B.5 metrics/files, metrics/pattern; F.1.

import { setImmediate as breathe } from 'node:timers/promises'
import { toText } from '../../core/byte-string.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { EROFS_FT, S_IFDIR, S_IFMT } from '../../format/erofs/inode.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { MetadataView } from '../fuse/served-file-system.ts'

/** LIMIT: directory entries looked at in one go: requests of readers go first. */
const ENTRIES_AT_ONCE = 2000

/** `latest=true`: the inodes read since the last time, as ranges; otherwise the counters of each inode. */
export function filesOf({ accounts }: MountInfo, query: URLSearchParams): object {
  if (query.get('latest') === 'true') return accounts()?.takeLatest() ?? []
  return accounts()?.files() ?? {}
}

/** Inodes that were read, how often, and when first. */
export function patternOf({ accounts }: MountInfo): object {
  return accounts()?.pattern() ?? []
}

/** The trace so far, as paths; with `stop` it ends. @throws SERVE_STATE when none was begun */
export async function traceOf({ mountpoint, fileSystem, accounts, trace }: MountInfo, { stop = false } = {}): Promise<object> {
  const found = accounts()?.trace()
  if (!found) throw new CodedError('SERVE_STATE', `no trace of ${mountpoint} was begun`, { mountpoint })
  if (stop) trace(false)
  const paths = await pathsOf(fileSystem.view, new Set(found.entries.map(({ nid }) => nid)))
  return {
    mountpoint, started_at: new Date(found.startedAt).toISOString(), lost: found.lost,
    entries: found.entries.flatMap(({ nid, offset, length, at }) => {
      const path = paths.get(nid)
      return path === undefined ? [] : [{ path: toText(path), offset, length, ms: Math.round((at - found.startedAt) * 10) / 10 }]
    }),
  }
}

/** Paths (byte strings) of inodes; the first of several links. */
async function pathsOf(view: MetadataView, nids: ReadonlySet<number>): Promise<ReadonlyMap<number, string>> {
  const paths = new Map<number, string>()
  const seen = new Set<number>() // a damaged image may have a directory inside itself
  const todo: (readonly [nid: number, path: string])[] = [[view.rootNid, '']]
  let entries = 0
  while (todo.length > 0 && paths.size < nids.size) {
    const [nid, path] = todo.pop()!
    if (seen.has(nid)) continue
    seen.add(nid)
    try {
      const inode = view.inode(nid)
      if ((inode.mode & S_IFMT) !== S_IFDIR) continue
      for (const entry of view.entries(inode)) {
        if (entry.name === '.' || entry.name === '..') continue
        if (nids.has(entry.nid) && !paths.has(entry.nid)) paths.set(entry.nid, `${path}/${entry.name}`)
        if (entry.fileType === EROFS_FT.directory) todo.push([entry.nid, `${path}/${entry.name}`])
        if (++entries % ENTRIES_AT_ONCE === 0) await breathe()
      }
    } catch (error) {
      if (!isCoded(error)) throw error
    }
  }
  return paths
}

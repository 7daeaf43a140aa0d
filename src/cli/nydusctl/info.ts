// `nydusctl info` for people.

import { asMetrics, type Metrics } from './metrics.ts'
import { fields, grid } from './figures.ts'

/** GET /api/v1/daemon as text. */
export function showInfo(daemon: Metrics): string {
  const version = asMetrics(daemon['version'] ?? {})
  const mounts = Object.values(asMetrics(daemon['backend_collection'] ?? {})).map(asMetrics)
  const head = fields([
    ['Version', text(version['package_ver'])],
    ['Commit', text(version['git_commit'])],
    ['Build Time', text(version['build_time'])],
    ['Runtime', text(version['rustc'])],
    ['State', text(daemon['state'])],
    ['Id', text(daemon['id'])],
    ['Supervisor', text(daemon['supervisor'])],
    ['Mounts', mounts.length],
  ])
  if (mounts.length === 0) return head
  const rows = mounts.map((mount) => {
    const config = asMetrics(mount['config'] ?? {})
    const cache = asMetrics(config['cache'] ?? {})
    return [text(mount['mountpoint']), text(mount['backend_type']), backendOf(asMetrics(config['backend'] ?? {})), text(cache['type']),
      text(asMetrics(cache['filecache'] ?? {})['work_dir']), text(mount['mounted_time'])]
  })
  return `${head}\n${grid(['Mountpoint', 'Type', 'Backend', 'Cache', 'Directory', 'Mounted'], rows)}`
}

/** Its type and what says where it is. */
function backendOf(backend: Metrics): string {
  const type = text(backend['type'])
  const details = asMetrics(backend[type] ?? {})
  const where = ['host', 'repo', 'endpoint', 'bucket_name', 'dir', 'blob_file', 'device_path', 'addr'].flatMap((key) => (details[key] ? [text(details[key])] : []))
  return where.length === 0 ? type : `${type} ${where.join('/')}`
}

function text(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '-'
}

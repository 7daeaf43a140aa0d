// GET /metrics: the same numbers in Prometheus' text format. Names are documented in docs/metrics.md, which a test holds.
// SPEC: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).

import { cacheHits, FOPS, fsIoStats } from '../counters.ts'
import type { Daemon } from '../daemon/daemon.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import type { ProgramVersion } from './documents.ts'
import { isImage } from './instances.ts'

/** Content type of the answer. */
export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Upper bounds of the buckets of FsIoStats, in seconds and bytes; the last bucket is open. */
const LATENCY_SECONDS = [0.0002, 0.001, 0.02, 0.05, 0.5, 1, 2]
const SIZE_BYTES = [1, 4, 16, 64, 128, 512, 1024].map((kib) => kib * 1024)

/** Every family: its type and what it says. */
export const PROMETHEUS_FAMILIES = {
  nydusd_info: ['gauge', 'Version and commit of the daemon, always 1'],
  nydusd_up: ['gauge', '1 while the daemon is RUNNING'],
  nydusd_mounts: ['gauge', 'File systems that are mounted'],
  nydusd_fs_operations_total: ['counter', 'File system requests, by mount and operation'],
  nydusd_fs_operation_errors_total: ['counter', 'File system requests that failed, by mount and operation'],
  nydusd_fs_operation_seconds_total: ['counter', 'Time spent on file system requests, by mount and operation'],
  nydusd_fs_read_bytes_total: ['counter', 'Bytes that readers got, by mount'],
  nydusd_fs_read_duration_seconds: ['histogram', 'Duration of reads, by mount'],
  nydusd_fs_read_size_bytes: ['histogram', 'Size of reads, by mount'],
  nydusd_fs_inflight_reads: ['gauge', 'Reads that wait for their bytes, by mount'],
  nydusd_fs_oldest_read_seconds: ['gauge', 'How long the oldest of them has waited, by mount'],
  nydusd_cache_reads_total: ['counter', 'Reads of the cache, by mount and result: hit, partial, miss'],
  nydusd_cache_chunks_total: ['counter', 'Chunks that were stored in the cache, by mount'],
  nydusd_cache_corrupt_chunks_total: ['counter', 'Chunks that did not hash to their digest, by mount'],
  nydusd_cache_buffered_bytes: ['gauge', 'Bytes fetched that are not stored yet, by mount'],
  nydusd_prefetch_bytes_total: ['counter', 'Bytes fetched ahead, by mount'],
  nydusd_prefetch_requests_total: ['counter', 'Requests that fetched ahead, by mount'],
  nydusd_backend_requests_total: ['counter', 'Requests to the backend, by mount and backend type'],
  nydusd_backend_errors_total: ['counter', 'Requests to the backend that failed, by mount and backend type'],
  nydusd_backend_bytes_total: ['counter', 'Bytes from the backend, by mount and backend type'],
  nydusd_backend_seconds_total: ['counter', 'Time spent on requests to the backend, by mount and backend type'],
} as const satisfies Readonly<Record<string, readonly [type: 'gauge' | 'counter' | 'histogram', help: string]>>

type Family = keyof typeof PROMETHEUS_FAMILIES
type Labels = Readonly<Record<string, string>>

/** The whole answer. */
export function prometheusText(daemon: Pick<Daemon, 'state' | 'mounts' | 'inflight'>, { package_ver: version, git_commit: commit }: ProgramVersion): string {
  const lines = new Map<Family, string[]>()
  const add = (family: Family, labels: Labels, value: number, suffix = ''): void => {
    const list = lines.get(family) ?? []
    if (list.length === 0) lines.set(family, list)
    list.push(`${family}${suffix}${labelText(labels)} ${value}`)
  }
  const mounts = daemon.mounts()
  const inflight = daemon.inflight()
  const now = performance.timeOrigin + performance.now()
  add('nydusd_info', { version, commit }, 1)
  add('nydusd_up', {}, daemon.state === 'RUNNING' ? 1 : 0)
  add('nydusd_mounts', {}, mounts.length)
  for (const mount of mounts) {
    const { mountpoint, counters, serial } = mount
    const of = { mountpoint }
    const fs = fsIoStats(counters, mountpoint)
    const histogram = (family: Family, bounds: readonly number[], counts: readonly number[], total: number): void => {
      let below = 0
      for (const [i, count] of counts.entries()) add(family, { ...of, le: bounds[i] === undefined ? '+Inf' : String(bounds[i]) }, below += count, '_bucket')
      add(family, of, total, '_sum')
      add(family, of, below, '_count')
    }
    for (const [i, opcode] of FOPS.entries()) {
      const operation = { ...of, operation: NAMES.get(opcode) ?? String(opcode) }
      add('nydusd_fs_operations_total', operation, fs.fop_hits[i]!)
      add('nydusd_fs_operation_errors_total', operation, fs.fop_errors[i]!)
      add('nydusd_fs_operation_seconds_total', operation, fs.fop_cumulative_latency_total[i]! / 1e6)
    }
    add('nydusd_fs_read_bytes_total', of, fs.data_read)
    histogram('nydusd_fs_read_duration_seconds', LATENCY_SECONDS, fs.read_latency_dist, fs.fop_cumulative_latency_total[READ]! / 1e6)
    histogram('nydusd_fs_read_size_bytes', SIZE_BYTES, fs.block_count_read, fs.data_read)
    const waiting = inflight.filter((one) => one.serial === serial)
    add('nydusd_fs_inflight_reads', of, waiting.length)
    add('nydusd_fs_oldest_read_seconds', of, Math.max(0, ...waiting.map(({ at }) => (now - at) / 1000)))
    if (!isImage(mount)) continue
    const { cacheMetrics: cache, backendMetrics: backend } = mount.fileSystem.image
    const hits = cacheHits(counters)
    add('nydusd_cache_reads_total', { ...of, result: 'hit' }, cache.wholeHits + hits)
    add('nydusd_cache_reads_total', { ...of, result: 'partial' }, cache.partialHits)
    add('nydusd_cache_reads_total', { ...of, result: 'miss' }, cache.total - cache.wholeHits - cache.partialHits)
    add('nydusd_cache_chunks_total', of, cache.entriesCount)
    add('nydusd_cache_corrupt_chunks_total', of, cache.corruptChunks)
    add('nydusd_cache_buffered_bytes', of, cache.bufferedBackendSize)
    add('nydusd_prefetch_bytes_total', of, cache.prefetchDataAmount)
    add('nydusd_prefetch_requests_total', of, cache.prefetchRequestsCount)
    const from = { ...of, backend: backend.type }
    add('nydusd_backend_requests_total', from, backend.readCount)
    add('nydusd_backend_errors_total', from, backend.readErrors)
    add('nydusd_backend_bytes_total', from, backend.readAmountTotal)
    add('nydusd_backend_seconds_total', from, backend.readLatencyMsTotal / 1000)
  }
  return [...lines].map(([family, samples]) => {
    const [type, help] = PROMETHEUS_FAMILIES[family]
    return `# HELP ${family} ${help}\n# TYPE ${family} ${type}\n${samples.join('\n')}\n`
  }).join('')
}

const NAMES = new Map<number, string>(Object.entries(FUSE_OP).map(([name, opcode]) => [opcode, name.toLowerCase()]))
const READ = FOPS.indexOf(FUSE_OP.READ)

function labelText(labels: Labels): string {
  const entries = Object.entries(labels)
  if (entries.length === 0) return ''
  return `{${entries.map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`))}"`).join(',')}}`
}

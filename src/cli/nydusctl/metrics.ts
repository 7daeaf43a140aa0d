// Metrics of a daemon as the API sends them, their difference between two moments, and how they are shown.
// SPEC: spec-surface.md F.1, F.3.

import { CodedError } from '../../core/errors.ts'
import { average, fields, percent, size, grid } from './figures.ts'

/** A metrics document: numbers, lists of numbers, lists of lists, and other things. */
export type Metrics = Readonly<Record<string, unknown>>

export type Category = 'backend' | 'cache' | 'fsstats'

/** Where each category is found. */
export const METRICS_PATH: Readonly<Record<Category, string>> = { backend: '/api/v1/metrics/backend', cache: '/api/v1/metrics/blobcache', fsstats: '/api/v1/metrics' }

/** Numbers that are no counters: a difference between two moments says nothing. */
const LEVELS = new Set(['nr_opens', 'prefetch_workers', 'prefetch_begin_time_secs', 'prefetch_begin_time_millis', 'prefetch_end_time_secs', 'prefetch_end_time_millis', 'buffered_backend_size'])

const SIZES = ['<1K', '1K~', '4K~', '16K~', '64K~', '128K~', '512K~', '1M~']
const READ_LATENCIES = ['<200us', '~1ms', '~20ms', '~50ms', '~500ms', '~1s', '~2s', '2s~']
const OPERATIONS = ['getattr', 'readlink', 'open', 'release', 'read', 'statfs', 'getxattr', 'listxattr', 'opendir', 'lookup', 'readdir', 'readdirplus', 'access', 'forget', 'batchforget']

/** A JSON object. @throws CONFIG_INVALID when the daemon sent anything else */
export function asMetrics(body: unknown): Metrics {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new CodedError('CONFIG_INVALID', 'the daemon answers with something that is no object')
  return Object.fromEntries(Object.entries(body))
}

/** A number of `metrics`, 0 where it has none of that name. */
export function count(metrics: Metrics, name: string): number {
  const value = metrics[name]
  return typeof value === 'number' ? value : 0
}

/** A list of numbers. */
export function counts(metrics: Metrics, name: string): number[] {
  const value = metrics[name]
  return Array.isArray(value) ? value.map((one) => (typeof one === 'number' ? one : 0)) : []
}

/** What was counted between two moments; everything else as it is now. */
export function difference(before: Metrics, now: Metrics): Metrics {
  return Object.fromEntries(Object.entries(now).map(([name, value]) => [name, LEVELS.has(name) ? value : less(before[name], value)]))
}

function less(before: unknown, now: unknown): unknown {
  if (typeof now === 'number' && typeof before === 'number') return Math.max(0, now - before)
  if (Array.isArray(now) && Array.isArray(before)) return now.map((one, i) => less(before[i], one))
  return now
}

/** One category as text; with `seconds`, the counters are what was counted in that time. */
export function show(category: Category, metrics: Metrics, seconds?: number): string {
  if (category === 'backend') return showBackend(metrics, seconds)
  return category === 'cache' ? showCache(metrics, seconds) : showFsStats(metrics, seconds)
}

function showBackend(m: Metrics, seconds: number | undefined): string {
  const requests = counts(m, 'read_count_block_size_dist')
  const latencies = counts(m, 'read_cumulative_latency_millis_dist')
  const head = fields([
    ['Backend Type', String(m['backend_type'])],
    ['Read Amount', `${count(m, 'read_amount_total')} Bytes (${size(count(m, 'read_amount_total'))})`],
    ...bandwidth('Read Bandwidth', count(m, 'read_amount_total'), seconds),
    ['Read Count', count(m, 'read_count')],
    ['Read Errors', count(m, 'read_errors')],
    ['Average Size', size(Math.round(count(m, 'read_amount_total') / (count(m, 'read_count') || 1)))],
    ['Average Latency', `${average(count(m, 'read_cumulative_latency_millis_total'), count(m, 'read_count'))} ms`],
  ])
  return `${head}\n${grid(['Block Sizes', '>Requests', '>Average Latency (ms)'], SIZES.map((name, i) => [name, requests[i] ?? 0, average(latencies[i] ?? 0, requests[i] ?? 0)]))}`
}

function showCache(m: Metrics, seconds: number | undefined): string {
  const prefetchMs = (count(m, 'prefetch_end_time_secs') - count(m, 'prefetch_begin_time_secs')) * 1000 + count(m, 'prefetch_end_time_millis') - count(m, 'prefetch_begin_time_millis')
  const [requests, amount] = [count(m, 'prefetch_requests_count'), count(m, 'prefetch_data_amount')]
  const files = Array.isArray(m['underlying_files']) ? m['underlying_files'].map(String) : []
  return fields([
    ['Partial Hits', count(m, 'partial_hits')],
    ['Whole Hits', `${count(m, 'whole_hits')} (${percent(count(m, 'whole_hits'), count(m, 'total'))})`],
    ['Total Read', count(m, 'total')],
    ['Chunks Cached', count(m, 'entries_count')],
    ['Directory', String(m['store_path'])],
    ['Complete', m['data_all_ready'] === true ? 'yes' : 'no'],
    ['Persister Buffer', size(count(m, 'buffered_backend_size'))],
    ['Prefetch Workers', count(m, 'prefetch_workers')],
    ['Prefetch Amount', `${amount} Bytes (${size(amount)})`],
    ['Prefetch Requests', requests],
    ['Prefetch Average Size', size(Math.round(amount / (requests || 1)))],
    ...(seconds === undefined && prefetchMs > 0
      ? [['Prefetch Duration', `${(prefetchMs / 1000).toFixed(3)} Seconds`] as const, ['Prefetch Bandwidth', `${size(amount * 1000 / prefetchMs)}/s`] as const]
      : bandwidth('Prefetch Bandwidth', amount, seconds)),
    ['Prefetch Request Latency', `${average(count(m, 'prefetch_cumulative_time_millis'), requests)} ms`],
    ['Prefetch Unmerged', count(m, 'prefetch_unmerged_chunks')],
    ['Files', files.length === 0 ? 'none' : files.join('\n  ')],
  ])
}

function showFsStats(m: Metrics, seconds: number | undefined): string {
  const [hits, errors, latency] = [counts(m, 'fop_hits'), counts(m, 'fop_errors'), counts(m, 'fop_cumulative_latency_total')]
  const [latencies, sizes] = [counts(m, 'read_latency_dist'), counts(m, 'block_count_read')]
  const used = OPERATIONS.map((name, i) => [name, hits[i] ?? 0, errors[i] ?? 0, average(latency[i] ?? 0, hits[i] ?? 0)] as const).filter(([, calls]) => calls > 0)
  const head = fields([
    ['Instance', String(m['id'])],
    ['Read Data', `${count(m, 'data_read')} Bytes (${size(count(m, 'data_read'))})`],
    ...bandwidth('Read Bandwidth', count(m, 'data_read'), seconds),
    ['Read Errors', errors[4] ?? 0],
    ['Open Files', count(m, 'nr_opens')],
  ])
  const reads = grid(['Read Latency', '>Reads', ' ', 'Read Size', '>Reads'], READ_LATENCIES.map((name, i) => [name, latencies[i] ?? 0, ' ', SIZES[i] ?? '', sizes[i] ?? 0]))
  return `${head}\n${reads}\n${grid(['Operation', '>Calls', '>Errors', '>Average (us)'], used)}`
}

function bandwidth(name: string, bytes: number, seconds: number | undefined): (readonly [string, string])[] {
  return seconds === undefined ? [] : [[name, `${size(bytes / seconds)}/s`]]
}

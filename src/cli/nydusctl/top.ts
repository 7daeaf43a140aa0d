// `nydusctl top`: what each mount does right now, from two answers of GET /api/v2/metrics.

import { asMetrics, count, counts, difference, type Metrics } from './metrics.ts'
import { average, percent, rate, size, grid } from './figures.ts'

/** LIMIT: read latency buckets from 500 ms on are what `SLOW` counts. */
const FIRST_SLOW_BUCKET = 5
/** A read under way for longer is shown as slow at once. */
const SLOW_SECONDS = 1
const READ = 4

interface Moment { readonly at: number; readonly mounts: ReadonlyMap<string, Metrics> }

/** Keeps the last answer. */
export class Top {
  #before: Moment | undefined

  /** Takes an answer, received at `at` (milliseconds); the screen, or undefined for the first one. */
  refresh(body: unknown, at: number): string | undefined {
    const mounts = new Map((Array.isArray(body) ? body.map(asMetrics) : []).map((mount) => [String(mount['mountpoint']), mount]))
    const before = this.#before
    this.#before = { at, mounts }
    return before && screen(before, this.#before)
  }
}

function screen(before: Moment, now: Moment): string {
  const seconds = (now.at - before.at) / 1000
  const rows = [...now.mounts].map(([mountpoint, mount]) => {
    const past = before.mounts.get(mountpoint)
    const part = (name: string): Metrics => difference(asMetrics(past?.[name] ?? {}), asMetrics(mount[name] ?? {}))
    const [fs, cache, backend] = [part('fs'), part('cache'), part('backend')]
    const [hits, latency] = [counts(fs, 'fop_hits'), counts(fs, 'fop_cumulative_latency_total')]
    const inflight = (Array.isArray(mount['inflight']) ? mount['inflight'] : []).map(asMetrics)
    const operations = hits.reduce((sum, calls) => sum + calls, 0)
    const oldest = Math.max(0, ...inflight.map((one) => count(one, 'age_millis')))
    const slow = counts(fs, 'read_latency_dist').slice(FIRST_SLOW_BUCKET).reduce((sum, reads) => sum + reads, 0) + inflight.filter((one) => count(one, 'age_millis') > SLOW_SECONDS * 1000).length
    const errors = counts(fs, 'fop_errors')[READ] ?? 0
    return {
      busy: operations,
      row: [
        mountpoint, rate(operations, seconds), rate(hits[READ] ?? 0, seconds), `${size(count(fs, 'data_read') / seconds)}/s`, average((latency[READ] ?? 0) / 1000, hits[READ] ?? 0),
        percent(count(cache, 'whole_hits'), count(cache, 'total')), rate(count(backend, 'read_count'), seconds), `${size(count(backend, 'read_amount_total') / seconds)}/s`,
        inflight.length, oldest === 0 ? '-' : `${(oldest / 1000).toFixed(1)} s`, slow, errors + count(backend, 'read_errors'),
      ],
    }
  })
  rows.sort((a, b) => b.busy - a.busy)
  return `${now.mounts.size} mounts, ${seconds.toFixed(1)} s\n\n${grid(['MOUNTPOINT', '>OPS/s', '>READS/s', '>READ', '>ms', '>HITS', '>FETCHES/s', '>FETCHED', '>UNDER WAY', '>OLDEST', '>SLOW', '>ERRORS'], rows.map(({ row }) => row))}`
}

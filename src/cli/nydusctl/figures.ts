// Text for people: aligned fields, sizes, rates.

import { sizeText, table } from './table.ts'

/** Rows under their titles; columns whose title begins with `>` are numbers, aligned to the right. */
export function grid(titles: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const right = titles.flatMap((title, i) => (title.startsWith('>') ? [i] : []))
  return table(titles.map((title) => title.replace(/^>/, '')), rows.map((row) => row.map(String)), right)
}

/** `name: value` lines with aligned values. */
export function fields(rows: readonly (readonly [name: string, value: string | number])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  return `${rows.map(([name, value]) => `${`${name}:`.padEnd(width)}${value}`).join('\n')}\n`
}

/** `1.4 MiB`. */
export function size(bytes: number): string {
  return sizeText(Math.round(bytes))
}

/** `12.5`, `0.3`, `150`. */
export function rate(count: number, seconds: number): string {
  const value = seconds > 0 ? count / seconds : 0
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1)
}

/** `87 %`, or `-` when there was nothing. */
export function percent(part: number, whole: number): string {
  return whole === 0 ? '-' : `${Math.floor(part * 100 / whole)} %`
}

/** `0.42` milliseconds on average, or `-`. */
export function average(sum: number, count: number): string {
  return count === 0 ? '-' : (sum / count).toFixed(2)
}

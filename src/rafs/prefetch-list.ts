// What to fetch ahead, as users give it: a path a line. A line of a trace (serve/access) also says which part of the file was read, and when.
//
//   /usr/bin/python3
//   /usr/lib/libc.so.6<TAB>0<TAB>65536<TAB>12.5        offset, length, milliseconds since the start of the trace
//
// SPEC: spec-surface.md A.0 (rules of such lines), B.1 --prefetch-files.

/** A file, or a directory with all below; `range` in bytes of a file. */
export interface PrefetchItem { readonly path: string; readonly range: { readonly offset: number; readonly length: number } | undefined }

const TRACE_LINE = /^(\/[^\t]*)\t(\d{1,15})\t(\d{1,15})\t\d+(?:\.\d+)?$/

/** One line (a byte string): trimmed, absolute, or undefined. */
export function prefetchItem(line: string): PrefetchItem | undefined {
  const trimmed = line.trim()
  if (!trimmed.startsWith('/')) return undefined
  const [, path, offset, length] = TRACE_LINE.exec(trimmed) ?? []
  return path === undefined ? { path: trimmed, range: undefined } : { path, range: { offset: Number(offset), length: Number(length) } }
}

/** The line of a trace that `prefetchItem` reads. */
export function traceLine({ path, offset, length, ms }: { readonly path: string; readonly offset: number; readonly length: number; readonly ms: number }): string {
  return `${path}\t${offset}\t${length}\t${ms.toFixed(1)}`
}

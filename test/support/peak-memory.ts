// How much memory a program of ours took: said by itself as it ends, so that no other tool is needed.

/** For NODE_OPTIONS, or as arguments of node. */
export const PRINT_PEAK = `--import=data:text/javascript,${encodeURIComponent('process.on("exit",()=>process.stderr.write("peak "+process.resourceUsage().maxRSS+" KiB\\n"))')}`

/** Peak resident memory in bytes out of what the program wrote to stderr (each of its threads says it as it ends). */
export function peakOf(stderr: string): number {
  const sizes = [...stderr.matchAll(/peak (\d+) KiB/g)].map(([, size]) => Number(size))
  if (sizes.length === 0) throw new Error(`no peak in: ${stderr.slice(0, 1000)}`)
  return Math.max(...sizes) * 1024
}

// Entry point of bin/nydusd, and of the servers that native/holder starts.

import { keepCompilerCalm, keepHeapLean, keepMallocLean } from './lean-heap.ts'
import { nydusd } from './nydusd/program.ts'

keepHeapLean()
keepCompilerCalm()
keepMallocLean()
const argv = process.argv.slice(2)
if (argv[0] === '--held') {
  const { serveHolder } = await import('./nydusd/held.ts')
  process.exit(await serveHolder(Number(argv[1])))
} else if (argv[0] === '--holders') {
  const { serveHolders } = await import('./nydusd/held.ts')
  process.exit(await serveHolders(argv[1]!))
} else {
  process.exitCode = await nydusd(argv)
}

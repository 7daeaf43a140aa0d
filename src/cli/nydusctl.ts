// Entry point of bin/nydusctl.

import { keepHeapLean } from './lean-heap.ts'
import { nydusctl } from './nydusctl/program.ts'

keepHeapLean()
process.exitCode = await nydusctl(process.argv.slice(2))

// Entry point of bin/nydusify.

import { keepHeapLean } from './lean-heap.ts'
import { nydusify } from './nydusify/program.ts'

keepHeapLean()
process.exitCode = await nydusify(process.argv.slice(2))

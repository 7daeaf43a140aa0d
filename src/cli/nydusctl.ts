// Entry point of bin/nydusctl.

import { keepHeapLean } from './lean-heap.ts'
import { nydusctl } from './nydusctl/program.ts'
import { endWithoutReader } from './reader-gone.ts'

endWithoutReader()
keepHeapLean()
process.exitCode = await nydusctl(process.argv.slice(2))

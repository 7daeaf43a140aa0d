// Entry point of bin/nydus-image.

import { keepHeapLean } from './lean-heap.ts'
import { nydusImage } from './nydus-image/program.ts'
import { endWithoutReader } from './reader-gone.ts'

endWithoutReader()
keepHeapLean()
process.exitCode = await nydusImage(process.argv.slice(2))

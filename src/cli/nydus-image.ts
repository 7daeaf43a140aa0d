// Entry point of bin/nydus-image.

import { nydusImage } from './nydus-image/program.ts'

process.exitCode = await nydusImage(process.argv.slice(2))

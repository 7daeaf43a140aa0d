// Entry point of bin/nydusify.

import { nydusify } from './nydusify/program.ts'

process.exitCode = await nydusify(process.argv.slice(2))

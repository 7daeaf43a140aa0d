// Entry point of bin/nydusd.

import { nydusd } from './nydusd/program.ts'

process.exitCode = await nydusd(process.argv.slice(2))

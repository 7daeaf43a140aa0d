#!/usr/bin/env node
// Runs one benchmark and lets it print its JSON: node bench/run.mjs native/codecs
// Node 20 runs no TypeScript by itself; vite, which vitest brings, does.
import path from 'node:path'
import { runnerImport } from 'vite'

const name = process.argv[2]
if (name === undefined) {
  process.stderr.write('usage: node bench/run.mjs LAYER/NAME\n')
  process.exit(2)
}
await runnerImport(path.join(import.meta.dirname, `${name}.bench.ts`), { configFile: false, logLevel: 'error', oxc: { target: 'es2022' } })

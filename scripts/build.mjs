#!/usr/bin/env node
// Builds everything that runs: the native addon (scripts/build-native.mjs) and dist/ from src/. Quick when nothing changed.
import { spawnSync } from 'node:child_process'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '..')
for (const [name, args] of [['native addon', ['scripts/build-native.mjs']], ['TypeScript', ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']]]) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) {
    process.stderr.write(`build: ${name} failed\n`)
    process.exit(1)
  }
}

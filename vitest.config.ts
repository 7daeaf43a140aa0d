import os from 'node:os'
import { defineConfig } from 'vitest/config'
import { withoutSafeguard } from './test/support/controls.ts'

/** Takes a safeguard out, for test/property/controls.test.ts. */
const CONTROL = process.env['NYDUS_CONTROL']

/** What measures times that a reader sees, or the memory of a hundred daemons: these files run alone, one after the other. */
const ALONE = ['failover', 'self-heal', 'server', 'limits', 'cache'].map((name) => `test/mount/${name}.test.ts`)

const SYSTEM = { pool: 'forks' as const, testTimeout: 180_000, hookTimeout: 120_000, globalSetup: ['test/support/leaks.ts'] }

// unit: no root, no network, under a minute. system and system-alone: root, FUSE, EROFS, registries; scripts/test.sh runs all. System tests wait for daemons, disks
// and registries for half of their time, so one file for each processor halves the run.
export default defineConfig({
  plugins: CONTROL === undefined ? [] : [withoutSafeguard(CONTROL)],
  oxc: { target: 'es2022' },
  test: {
    testTimeout: 30_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit', include: ['src/**/*.test.ts', 'test/unit/**/*.test.ts'],
          // all processors: vitest leaves one of them idle
          pool: 'forks', maxWorkers: os.availableParallelism(), sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          ...SYSTEM, name: 'system', include: ['test/{conformance,fuzz,interop,mount,property,image,package}/**/*.test.ts'], exclude: ALONE,
          maxWorkers: os.availableParallelism(), sequence: { groupOrder: 1 },
        },
      },
      { extends: true, test: { ...SYSTEM, name: 'system-alone', include: ALONE, fileParallelism: false, sequence: { groupOrder: 2 } } },
      // What needs upstream's own programs: scripts/interop.sh gives their paths.
      ...(process.env['NYDUS_PEER_IMAGE'] ? [{ extends: true as const, test: { name: 'peer', include: ['test/interop/*.peer.ts'], pool: 'forks' as const, testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false, sequence: { groupOrder: 3 } } }] : []),
    ],
  },
})

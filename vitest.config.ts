import os from 'node:os'
import { defineConfig } from 'vitest/config'
import { withoutSafeguard } from './test/support/controls.ts'

/** Takes a safeguard out, for test/property/controls.test.ts. */
const CONTROL = process.env['NYDUS_CONTROL']

// unit: no root, no network, under a minute. system: root, FUSE, EROFS, registries; scripts/test.sh runs both.
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
          name: 'system',
          include: ['test/{conformance,fuzz,interop,mount,property,image,package}/**/*.test.ts'],
          globalSetup: ['test/support/leaks.ts'], pool: 'forks', testTimeout: 180_000, hookTimeout: 120_000, fileParallelism: false, sequence: { groupOrder: 1 },
        },
      },
      // What needs upstream's own programs: scripts/interop.sh gives their paths.
      ...(process.env['NYDUS_PEER_IMAGE'] ? [{ extends: true as const, test: { name: 'peer', include: ['test/interop/*.peer.ts'], pool: 'forks' as const, testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false, sequence: { groupOrder: 2 } } }] : []),
    ],
  },
})

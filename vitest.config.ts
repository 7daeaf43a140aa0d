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
      { extends: true, test: { name: 'unit', include: ['src/**/*.test.ts', 'test/unit/**/*.test.ts'], pool: 'forks' } },
      {
        extends: true,
        test: {
          name: 'system',
          include: ['test/{conformance,fuzz,interop,mount,property,image,package}/**/*.test.ts'],
          globalSetup: ['test/support/leaks.ts'], pool: 'forks', testTimeout: 180_000, hookTimeout: 120_000, fileParallelism: false,
        },
      },
      // What needs upstream's own programs: scripts/interop.sh gives their paths.
      ...(process.env['NYDUS_PEER_IMAGE'] ? [{ extends: true as const, test: { name: 'peer', include: ['test/interop/*.peer.ts'], pool: 'forks' as const, testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false } }] : []),
    ],
  },
})

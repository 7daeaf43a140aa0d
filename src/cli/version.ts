// What `--version` and GET /api/v1/daemon say. scripts/build.mjs writes dist/build-info.json beside the compiled sources.

import { readFileSync } from 'node:fs'
import { isSystemError } from '../core/errors.ts'

export interface BuildInfo {
  /** `v` and the package's version: callers look for `Version:\s*(v.*)`. */
  readonly version: string
  /** Full commit hash, or `unknown` outside a checkout. */
  readonly gitCommit: string
  /** ISO 8601, of the build. */
  readonly buildTime: string
}

/** Read once per call; a missing file (sources run without a build) gives `unknown`. */
export function buildInfo(): BuildInfo {
  try {
    // SAFETY: written by scripts/build.mjs in exactly this shape.
    return JSON.parse(readFileSync(new URL('../build-info.json', import.meta.url), 'utf8')) as BuildInfo
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return { version: 'v0.0.0', gitCommit: 'unknown', buildTime: 'unknown' }
    throw error
  }
}

/** COMPAT: the block that upstream's programs print; nydus-snapshotter reads `Git Commit:`, nydusify reads `Version:` (spec-surface A.9). */
export function versionBlock(): string {
  const { version, gitCommit, buildTime } = buildInfo()
  return [`Version: \t${version}`, `Git Commit: \t${gitCommit}`, `Build Time: \t${buildTime}`, 'Profile: \trelease', `Runtime: \tNode.js ${process.version}`].join('\n')
}

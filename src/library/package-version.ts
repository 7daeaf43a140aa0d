// The version of this package, as images and archives name their maker.

import { readFileSync } from 'node:fs'

let version: string | undefined

/** `v` and the version in package.json. */
export function packageVersion(): string {
  if (version === undefined) {
    // src/library/ and dist/library/ are equally deep.
    const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
    // SAFETY: our own package.json.
    version = `v${(JSON.parse(text) as { version: string }).version}`
  }
  return version
}
